"""Builds what is published: `python -m deploy.dist [FOLDER]`, a wheel and a source archive of each distribution.

Rule: a wheel is built from its own source archive, so both are known to be complete; hatchling is the one of
constraints.txt and is not asked of a registry. Files of an older build with these names are replaced, others stay.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = {"prunella-agent": ROOT / "libs" / "agent", "prunella": ROOT}


class Unbuilt(Exception):  # noqa: N818 - says what it means
    """A distribution could not be built; the text is what the builder said."""


def build(folder: Path) -> list[Path]:
    """Builds both distributions into a folder; the files, the agent's first. Raises Unbuilt."""
    generated = subprocess.run([sys.executable, str(ROOT / "protos" / "generate.py")], check=False)
    if generated.returncode != 0:
        raise Unbuilt("the protos could not be generated")
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for name, project in PROJECTS.items():
        with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as fresh:
            uv = [
                str(Path(sys.executable).with_name("uv")),
                "build",
                "--no-config",
                "--offline",
                "--no-build-isolation",
            ]
            command = [*uv, "--python", sys.executable, "--out-dir", fresh, "--no-create-gitignore", str(project)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Unbuilt(f"{name} could not be built:\n{done.stderr.strip()}")
            made += [file.replace(folder / file.name) for file in sorted(Path(fresh).iterdir())]
    return made


def main() -> int:
    """Builds and says in a sentence what was built."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist").resolve()
    try:
        made = build(folder)
    except Unbuilt as problem:
        print(f"dist: {problem}", file=sys.stderr)
        return 1
    names = ", ".join(f"{path.name} ({path.stat().st_size // 1024} KiB)" for path in made)
    print(f"built into {folder}: {names}; install with: pip install --find-links {folder} 'prunella[local]'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
