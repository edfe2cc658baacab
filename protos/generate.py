"""Turns protos/**/*.proto into messages, gRPC stubs and their types: the agent's beside it, all others in protos/gen.

Rule: generated code is never committed and never older than its sources. A stamp (a hash of the sources and of the
generator's own version) says whether there is anything to do; `--force` does it anyway. Files are written beside their
place and renamed into it, so that a reader at the same moment sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OUT = ROOT / "gen"
# `prunella.v1` is a namespace of two folders, as of two distributions: what agents speak comes with the agent alone.
AGENT_OUT = ROOT.parent / "libs" / "agent"
AGENT_FILES = "prunella/v1/agent_pb2"
STAMP = OUT / ".stamp"


def sources() -> list[Path]:
    """All proto files of this repository, in a stable order."""
    return sorted(path for path in (ROOT / "prunella").rglob("*.proto"))


def fingerprint(files: Iterable[Path]) -> str:
    """What the generated code depends on, as one hash."""
    digest = hashlib.sha256()
    for package in ("grpcio-tools", "mypy-protobuf"):
        digest.update(f"{package}={version(package)}\n".encode())
    for path in [Path(__file__).resolve(), *files]:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def includes() -> list[Path]:
    """Folders in which imports are looked up: ours, the well-known types, google.rpc."""
    import google.rpc
    import grpc_tools

    tools = Path(next(iter(grpc_tools.__path__))) / "_proto"
    common = Path(next(iter(google.rpc.__path__))).parent.parent
    return [ROOT, tools, common]


def protoc(files: list[Path], out: Path) -> int:
    """Runs the compiler of grpcio-tools; its exit status."""
    from grpc_tools import protoc as compiler

    # The plugins are console scripts beside this interpreter, which need not be on PATH.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    arguments = ["protoc", *(f"-I{folder}" for folder in includes())]
    arguments += [f"--{kind}_out={out}" for kind in ("python", "grpc_python")]
    arguments += [f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet:{out}"]
    return int(compiler.main([*arguments, *(str(path) for path in files)]))


def install(fresh: Path) -> None:
    """Moves new files into place one by one, then removes those whose source is gone."""
    made = {path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file()}
    targets = {name: (AGENT_OUT if name.startswith(AGENT_FILES) else OUT) / name for name in made}
    for name, target in sorted(targets.items()):
        target.parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).replace(target)
    for folder in (OUT / "prunella", AGENT_OUT / "prunella"):
        for path in [found for found in folder.rglob("*_pb2*.py*") if "__pycache__" not in found.parts]:
            if path not in targets.values():
                path.unlink()


def main(arguments: list[str]) -> int:
    """Generates when needed; 0 when the generated code is current."""
    files = sources()
    if not files:
        print("protos: no .proto files yet, nothing to generate", file=sys.stderr)
        return 0
    wanted = fingerprint(files)
    there = STAMP.exists() and (AGENT_OUT / "prunella").exists()
    if "--force" not in arguments and there and STAMP.read_text() == wanted:
        return 0
    OUT.mkdir(exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".gen-", dir=ROOT))
    try:
        status = protoc(files, fresh)
        if status == 0:
            install(fresh)
            STAMP.write_text(wanted)
            print(f"protos: generated {len(files)} files")
        return status
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
