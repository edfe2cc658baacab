"""Where this program came from: a checkout, which has its Makefile, or distributions in an environment.

Rule: code finds its own files beside itself, the same in both; only what is said to a person, and whose plane this is,
depends on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The folder of `services`, `libs`, `deploy` and `cli`: the checkout, or the environment's site-packages.
ROOT = Path(__file__).resolve().parents[2]
IS_CHECKOUT = (ROOT / "protos" / "generate.py").exists()
# What has a plane of its own. Whoever installs into two environments has two planes, as with two checkouts.
PLACE = ROOT if IS_CHECKOUT else Path(sys.prefix).resolve()
# The line that starts a plane, and the line that installs what a plane on one machine needs.
START = "make run  (or: prunella up)" if IS_CHECKOUT else "prunella up"
INSTALL = "make run  (installs it)" if IS_CHECKOUT else "pip install 'prunella[local]'"
HERE = "this checkout" if IS_CHECKOUT else "this environment"
START_DEMO = "make run  (or: prunella up --demo)" if IS_CHECKOUT else "prunella up --demo"


def version() -> str:
    """The version of both distributions."""
    if not IS_CHECKOUT:
        from importlib.metadata import version as installed

        return installed("prunella")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = (str(dependency) for dependency in project["dependencies"])
    return next(line.partition("==")[2] for line in wanted if line.startswith("prunella-agent"))
