"""Makes `.venv` ready with nothing but a Python that has venv: `python3 deploy/bootstrap.py run|test|bench`.

Rule: what is installed is exactly what constraints.txt names, hashes checked; nothing outside the checkout is written.
A stamp (a hash of pyproject.toml, constraints.txt and the Python) makes the second call a no-op, and only the standard
library is imported, so that the no-op costs no more than starting Python. When something is missing, the message is
the line to type.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("PRUNELLA_VENV") or ROOT / ".venv")
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
CONSTRAINTS = ROOT / "constraints.txt"
OVERRIDES = ROOT / "deploy" / "overrides.txt"
STAMP = VENV / "prunella.json"
IMPORT_ROOTS = (ROOT, ROOT / "protos" / "gen", ROOT / "libs" / "agent")
# Each set holds the one before it.
EXTRAS = {"run": "checkout", "test": "dev", "bench": "bench"}
OLDEST = (3, 11)

CONSOLE_SCRIPT = """#!{python}
# Written by deploy/bootstrap.py.
import sys

from cli.main import app

sys.exit(app())
"""


class Missing(Exception):  # noqa: N818 - says what it means
    """Something that only a person can install; the text says how."""


def say(text: str) -> None:
    """One line of progress, on standard error: standard output belongs to the command that follows."""
    print(text, file=sys.stderr, flush=True)


def fingerprint() -> str:
    """What the installed set depends on."""
    digest = hashlib.sha256()
    for path in (Path(__file__), ROOT / "pyproject.toml", CONSTRAINTS, OVERRIDES):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def protos_fingerprint() -> str:
    """Sources of the generated code, by name, size and time: cheap, and only decides whether the generator is asked."""
    digest = hashlib.sha256()
    for path in sorted([ROOT / "protos" / "generate.py", *(ROOT / "protos" / "prunella").rglob("*.proto")]):
        stat = path.stat()
        digest.update(f"{path}:{stat.st_size}:{stat.st_mtime_ns};".encode())
    return digest.hexdigest()


def read_stamp() -> dict[str, str]:
    """What the last call left; empty when there was none or it was interrupted."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in stamp.items()} if isinstance(stamp, dict) else {}


def write_stamp(stamp: dict[str, str]) -> None:
    """Replaces the stamp whole."""
    draft = STAMP.with_suffix(".tmp")
    draft.write_text(json.dumps(stamp))
    draft.replace(STAMP)


def run(command: list[str], failed: str) -> None:
    """Runs one step with its output held back; shows it and stops when the step fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise Missing(f"{failed}\n{done.stdout.strip()}")


def make_venv() -> None:
    """Creates the environment with pip in it; removes a half-made one first."""
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        name = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise Missing(f"this Python has no venv. On Debian or Ubuntu type:  apt install {name}") from None
    say(f"python   {sys.version.split()[0]} ({sys.executable}) → {VENV}")
    run([sys.executable, "-m", "venv", str(VENV)], f"cannot create {VENV}:")


def pinned(name: str) -> str:
    """The block of constraints.txt for one package: its version and hashes."""
    lines = CONSTRAINTS.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(name + "=="))
    end = next((n for n in range(start + 1, len(lines)) if not lines[n].startswith(" ")), len(lines))
    return "\n".join(lines[start:end]) + "\n"


def find_uv() -> str | None:
    """A uv to install with: one on PATH, else the pinned one from the registry, else none (pip does it, slower)."""
    found = shutil.which("uv") or shutil.which("uv", path=str(BIN))
    if found:
        return found
    wanted = VENV / "uv.txt"
    wanted.write_text(pinned("uv"))
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    done = subprocess.run([*pip, "--require-hashes", "-r", str(wanted)], capture_output=True, text=True, check=False)
    return shutil.which("uv", path=str(BIN)) if done.returncode == 0 else None


def cache_options() -> list[str]:
    """Nothing, or no cache for somebody whose home cannot be written to."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/")) / ".cache")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ["--no-cache"]
    return [] if os.access(cache, os.W_OK) else ["--no-cache"]


def install(extra: str) -> None:
    """Installs one set, every hash checked. pip cannot choose from a lock with hashes, so it installs all of it."""
    uv = find_uv()
    started = time.monotonic()
    say(f"packages the {extra!r} set of pyproject.toml, by {'uv' if uv else 'pip, which takes longer'} …")
    if uv:
        wanted = ["-r", str(ROOT / "pyproject.toml"), "--extra", extra, "-c", str(CONSTRAINTS)]
        wanted += ["--override", str(OVERRIDES)]
        command = [uv, "pip", "install", "--quiet", "--python", str(PYTHON), *wanted, *cache_options()]
    else:
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "-r", str(CONSTRAINTS)]
    run([*command, "--require-hashes"], "packages could not be installed; is a package registry reachable?")
    say(f"packages installed in {time.monotonic() - started:.0f} s")


def link_checkout() -> None:
    """Makes the checkout importable and gives it its command, without building anything."""
    library = next(path for path in VENV.rglob("site-packages") if path.is_dir())
    (library / "prunella.pth").write_text("".join(f"{path}\n" for path in IMPORT_ROOTS))
    script = BIN / "prunella"
    script.write_text(CONSOLE_SCRIPT.format(python=PYTHON))
    script.chmod(0o755)


def generate(stamp: dict[str, str]) -> None:
    """Generates the protos when their sources changed or the result is gone."""
    current = protos_fingerprint()
    made = (ROOT / "protos" / "gen" / ".stamp", ROOT / "libs" / "agent" / "prunella")
    if stamp.get("protos") == current and all(place.exists() for place in made):
        return
    run([str(PYTHON), str(ROOT / "protos" / "generate.py")], "protos could not be generated:")
    say("protos   generated")
    write_stamp({**stamp, "protos": current})


def bootstrap(kind: str) -> None:
    """Brings `.venv` to the set that `kind` needs (bench includes test, which includes run)."""
    wanted, python = fingerprint(), sys.version
    stamp = read_stamp()
    sets = stamp.get("sets", "").split()
    if stamp.get("python") != python or not PYTHON.exists():
        make_venv()
        stamp, sets = {}, []
    if stamp.get("packages") != wanted or kind not in sets:
        # A set that was there stays: `make run` after an update must not take the tools of `make test` away.
        kinds = list(EXTRAS)
        kind = max([kind, *sets], key=kinds.index)
        install(EXTRAS[kind])
        link_checkout()
        stamp = {"python": python, "packages": wanted, "sets": " ".join(kinds[: kinds.index(kind) + 1])}
        write_stamp(stamp)
    generate(stamp)


def main() -> int:
    """Exit status 0 when the environment is ready."""
    if sys.version_info[:2] < OLDEST:
        say(f"Prunella needs Python 3.11 or newer, this is {sys.version.split()[0]}")
        return 2
    kind = sys.argv[1] if len(sys.argv) > 1 else "run"
    if kind not in EXTRAS:
        say(f"usage: bootstrap.py {'|'.join(EXTRAS)}")
        return 2
    try:
        bootstrap(kind)
    except Missing as problem:
        say(f"prunella: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
