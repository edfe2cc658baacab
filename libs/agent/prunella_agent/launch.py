"""How a release's commands are run: the same arguments and the same environment in a slot and in a sandbox.

Rule: the first argument `python` means the interpreter that runs now. A plugin gets its port, socket, configuration and
data folder, and of the environment around it nothing that belongs to the plane. The SDK is importable where it can be
handed over alone: an installed one lies among packages that a plugin with an interpreter of its own must not get.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunella_agent.proxies import sparing_loopback

SHARED = ("site-packages", "dist-packages")
SECRET = ("PRUNELLA_", "DATABASE_URL", "NATS_URL", "SIRA_", "STAGING_RUNNER_")


def command(arguments: Sequence[str]) -> list[str]:
    """The argument list of a release's command."""
    return [sys.executable, *arguments[1:]] if arguments and arguments[0] == "python" else list(arguments)


def environment(
    *, port: int, socket: Path | str, config: Path | str, data: Path | str, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a plugin process; `base` (default: this process's) loses everything of the plane's."""
    inherited = os.environ if base is None else base
    # A plugin's own probe asks this machine, whatever proxy is there for the outside world.
    passed = sparing_loopback({name: value for name, value in inherited.items() if not name.startswith(SECRET)})
    library = Path(__file__).resolve().parent.parent
    paths = [] if library.name in SHARED else [str(library)]
    paths += filter(None, inherited.get("PYTHONPATH", "").split(os.pathsep))
    return passed | {
        "PORT": str(port),
        "PRUNELLA_SOCKET": str(socket),
        "PRUNELLA_CONFIG": str(config),
        "PRUNELLA_DATA": str(data),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUNBUFFERED": "1",
    }
