"""Packs a folder into a release artifact and unpacks one, trusting nothing inside it.

Rule: an artifact is a `.tar.gz` of plain files with relative paths, at most 16 MiB packed, 64 MiB unpacked and 2,000
files. Links, devices, absolute paths, `..`, doubled names and anything after the end are refused before one byte is
written. Packing the same files gives the same bytes, whoever packs them and whenever.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from pathlib import Path, PurePosixPath

MAX_PACKED = 16 * 1024 * 1024
MAX_UNPACKED = 64 * 1024 * 1024
MAX_FILES = 2000
MAX_PATH = 240
BLOCK = 4096
LEFT_OUT = frozenset({"__pycache__", ".git"})


class ReleaseError(Exception):
    """An artifact or envelope that must not be used; `reason` is UPPER_SNAKE."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


def build_archive(folder: Path) -> bytes:
    """The artifact of a folder's files, the same bytes for the same contents. Raises ReleaseError."""
    files = sorted(p for p in folder.rglob("*") if not LEFT_OUT & set(p.relative_to(folder).parts) and not p.is_dir())
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in files:
            if path.is_symlink() or not path.is_file():
                raise ReleaseError(f"{path.name} is not a plain file", "ARTIFACT_NOT_PLAIN")
            data = path.read_bytes()
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.size = len(data)
            info.mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
            tar.addfile(info, io.BytesIO(data))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(raw.getvalue())
    artifact = packed.getvalue()
    members(artifact)
    return artifact


def unpack(artifact: bytes, target: Path) -> int:
    """Writes the files of an artifact below `target` (made here, must be new) and fsyncs them; returns how many.

    Raises ReleaseError before anything is written when one entry is not acceptable.
    """
    files = members(artifact)
    target.mkdir(parents=True)
    folders = {target}
    for path, (mode, data) in files.items():
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        folders.update(parent for parent in place.parents if parent.is_relative_to(target))
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    for folder in sorted(folders, reverse=True):
        sync_folder(folder)
    return len(files)


def room(artifact: bytes) -> int:
    """Bytes that the files of an artifact take on a disk, generously. Raises ReleaseError."""
    return sum(len(data) + BLOCK for _, data in members(artifact).values())


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def members(artifact: bytes) -> dict[PurePosixPath, tuple[int, bytes]]:
    """Path → (mode, bytes) of every file of an artifact. Raises ReleaseError."""
    found: dict[PurePosixPath, tuple[int, bytes]] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(inflate(artifact)), mode="r:") as tar:
            for entry in tar:
                path = plain_path(entry)
                if entry.type == tarfile.DIRTYPE:
                    continue
                stream = tar.extractfile(entry)
                data = stream.read() if stream else b""
                if path in found or len(found) >= MAX_FILES or len(data) != entry.size:
                    raise ReleaseError(f"doubled, cut or too many entries at {path}", "ARTIFACT_MALFORMED")
                found[path] = (0o755 if entry.mode & 0o111 else 0o644, data)
    except (tarfile.TarError, ValueError, OverflowError, OSError) as error:
        raise ReleaseError(f"not a tar archive: {error}", "ARTIFACT_MALFORMED") from error
    for path in found:
        if any(parent in found for parent in path.parents):
            raise ReleaseError(f"{path} lies below a file", "ARTIFACT_MALFORMED")
    if not found:
        raise ReleaseError("the artifact holds no files", "ARTIFACT_MALFORMED")
    return found


def inflate(artifact: bytes) -> bytes:
    """The tar inside the gzip, bounded. Raises ReleaseError."""
    if len(artifact) > MAX_PACKED:
        raise ReleaseError(f"{len(artifact)} bytes; at most {MAX_PACKED} are allowed", "ARTIFACT_TOO_LARGE")
    stream = zlib.decompressobj(wbits=31)
    try:
        raw = stream.decompress(artifact, MAX_UNPACKED + 1)
    except zlib.error as error:
        raise ReleaseError(f"not a gzip stream: {error}", "ARTIFACT_MALFORMED") from error
    if len(raw) > MAX_UNPACKED:
        raise ReleaseError(f"more than {MAX_UNPACKED} bytes unpacked", "ARTIFACT_TOO_LARGE")
    if not stream.eof or stream.unused_data:
        raise ReleaseError("the gzip stream is cut or has something behind it", "ARTIFACT_MALFORMED")
    return raw


def plain_path(entry: tarfile.TarInfo) -> PurePosixPath:
    """The path of a plain file or folder. Raises ReleaseError for everything else."""
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        raise ReleaseError(f"{entry.name!r} is neither a file nor a folder", "ARTIFACT_NOT_PLAIN")
    path = PurePosixPath(entry.name)
    unsafe = path.is_absolute() or ".." in path.parts or "\\" in entry.name or "\0" in entry.name
    if unsafe or not path.parts or len(entry.name.encode()) > MAX_PATH:
        raise ReleaseError(f"{entry.name!r} is not a path inside the release", "ARTIFACT_UNSAFE_PATH")
    return path
