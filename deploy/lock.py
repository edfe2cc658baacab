"""Writes constraints.txt: every package for every platform, with hashes, resolved from pyproject.toml.

Rule: the file names versions and hashes and nothing else: no address of a registry, no path of the machine it was
written on, and nothing that only this machine's own package sources have. Given versions stay; `--upgrade` asks for
new ones.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "constraints.txt"
HEADER = """\
# Every package this project is tested with, for every platform it runs on, each with its hashes.
# Written by `make lock`, never by hand.
"""
OPTIONS = ["--universal", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
LINE = re.compile(r"[a-z0-9._-]+==\S+( ; [^/@]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")


def resolve(upgrade: bool) -> str:
    """The text of a fresh resolution. Raises CalledProcessError when there is none."""
    uv = Path(sys.executable).with_name("uv")
    # Package sources of this machine's own configuration would leak into a file that is for everybody.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "constraints.txt"
        if not upgrade and LOCK.exists():
            out.write_text(LOCK.read_text())
        sets = ["pyproject.toml", "--extra", "bench", "--override", "deploy/overrides.txt"]
        command = [str(uv), "pip", "compile", *sets, "--python-version", "3.11", *OPTIONS]
        environment["UV_NO_CONFIG"] = "1"
        subprocess.run([*command, "-o", str(out)], check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        return "".join(line for line in out.read_text().splitlines(keepends=True) if not line.startswith("#"))


def main() -> int:
    """Replaces the lock, or leaves it when the resolution is not clean."""
    text = resolve("--upgrade" in sys.argv)
    strange = [line for line in text.splitlines() if not LINE.fullmatch(line)]
    if strange:
        print("lock: not written, this does not belong in it:\n" + "\n".join(strange[:5]), file=sys.stderr)
        return 1
    LOCK.write_text(HEADER + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
