"""Releases: signed by every pinned key or not at all; artifacts of plain files or not at all."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from prunella_agent import releases
from prunella_agent.releases import Manifest, ReleaseError

PAIRS = [releases.generate_key() for _ in range(3)]
PRIVATE = [private for private, _ in PAIRS]
PUBLIC = [public for _, public in PAIRS]


@pytest.fixture
def artifact(tmp_path: Path) -> bytes:
    folder = tmp_path / "source"
    (folder / "part").mkdir(parents=True)
    (folder / "main.py").write_text("print('hello')")
    (folder / "part" / "tool.sh").write_text("#!/bin/sh\n")
    (folder / "part" / "tool.sh").chmod(0o755)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "main.pyc").write_bytes(b"x")
    return releases.build_archive(folder)


@pytest.fixture
def manifest(artifact: bytes) -> Manifest:
    return releases.describe(artifact, package="relay", version="1.2.3")


def reason(what: object, *args: object) -> str:
    with pytest.raises(ReleaseError) as caught:
        what(*args)  # type: ignore[operator]
    return caught.value.reason


def test_what_both_pinned_keys_signed_is_valid(manifest: Manifest) -> None:
    assert releases.verify(releases.sign(manifest, PRIVATE[:2]), PUBLIC[:2]) == manifest
    assert releases.verify(releases.sign(manifest, PRIVATE), PUBLIC[:2]) == manifest


def test_one_key_twice_is_one_key(manifest: Manifest) -> None:
    twice = releases.sign(manifest, [PRIVATE[0], PRIVATE[0]])
    assert reason(releases.verify, twice, PUBLIC[:2]) == "SIGNATURE_MISSING"
    assert reason(releases.verify, twice, [PUBLIC[0], PUBLIC[0]]) == "KEYS_NOT_PINNED"
    assert reason(releases.verify, twice, []) == "KEYS_NOT_PINNED"


def test_a_signature_by_a_stranger_under_a_pinned_name_counts_for_nothing(manifest: Manifest) -> None:
    envelope = json.loads(releases.sign(manifest, [PRIVATE[0], PRIVATE[2]]))
    envelope["signatures"][1]["keyid"] = releases.key_id(PUBLIC[1])
    assert reason(releases.verify, json.dumps(envelope).encode(), PUBLIC[:2]) == "SIGNATURE_MISSING"


def test_a_changed_payload_is_not_what_was_signed(manifest: Manifest) -> None:
    envelope = json.loads(releases.sign(manifest, PRIVATE[:2]))
    payload = base64.b64decode(envelope["payload"]).replace(b"1.2.3", b"1.2.4")
    envelope["payload"] = base64.b64encode(payload).decode()
    assert reason(releases.verify, json.dumps(envelope).encode(), PUBLIC[:2]) == "SIGNATURE_MISSING"


def test_the_payload_type_is_signed_too(manifest: Manifest) -> None:
    assert releases.pre_authentication("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    envelope = json.loads(releases.sign(manifest, PRIVATE[:2]))
    envelope["payloadType"] = "text/plain"
    assert reason(releases.verify, json.dumps(envelope).encode(), PUBLIC[:2]) == "ENVELOPE_MALFORMED"


@pytest.mark.parametrize("garbage", [b"", b"[]", b"{}", b"null", b"\xff", b'{"payload": 3}', b"x" * 70_000])
def test_garbage_is_refused_with_a_reason(garbage: bytes) -> None:
    assert reason(releases.verify, garbage, PUBLIC[:2]) == "ENVELOPE_MALFORMED"


@pytest.mark.parametrize(
    "fields",
    [{"version": "../1"}, {"package": "Re lay"}, {"entrypoint": []}, {"size": -1}, {"digest": "00"}, {"probe": [3]}],
)
def test_a_manifest_with_a_wrong_field_names_it(manifest: Manifest, fields: dict[str, object]) -> None:
    body = json.loads(manifest.encode()) | fields
    with pytest.raises(ReleaseError, match=next(iter(fields))):
        releases.read_manifest(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def test_a_manifest_that_is_not_canonical_is_refused(manifest: Manifest) -> None:
    spaced = json.dumps(json.loads(manifest.encode()), indent=1).encode()
    assert reason(releases.read_manifest, spaced) == "MANIFEST_MALFORMED"


def test_an_altered_artifact_is_refused(manifest: Manifest, artifact: bytes) -> None:
    releases.check_artifact(manifest, artifact)
    assert reason(releases.check_artifact, manifest, artifact + b"x") == "SIZE_MISMATCH"
    assert reason(releases.check_artifact, manifest, artifact[:-1] + b"x") == "DIGEST_MISMATCH"


def test_the_same_files_give_the_same_bytes(tmp_path: Path, artifact: bytes) -> None:
    for name in ("main.py", "part"):
        (tmp_path / "source" / name).touch()
    assert releases.build_archive(tmp_path / "source") == artifact


def test_unpacking_gives_the_files_back_without_caches(tmp_path: Path, artifact: bytes) -> None:
    assert releases.unpack(artifact, tmp_path / "slot") == 2
    assert (tmp_path / "slot" / "main.py").read_text() == "print('hello')"
    assert (tmp_path / "slot" / "part" / "tool.sh").stat().st_mode & 0o777 == 0o755


def packed(*entries: tarfile.TarInfo, size: int = 0) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for entry in entries:
            entry.size = size
            tar.addfile(entry, io.BytesIO(b"\0" * size))
    return gzip.compress(raw.getvalue())


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (packed(entry("/etc/x")), "ARTIFACT_UNSAFE_PATH"),
        (packed(entry("a/../../x")), "ARTIFACT_UNSAFE_PATH"),
        (packed(entry("..\\x")), "ARTIFACT_UNSAFE_PATH"),
        (packed(entry("l", tarfile.SYMTYPE, "/etc")), "ARTIFACT_NOT_PLAIN"),
        (packed(entry("l", tarfile.LNKTYPE, "main.py")), "ARTIFACT_NOT_PLAIN"),
        (packed(entry("d", tarfile.CHRTYPE)), "ARTIFACT_NOT_PLAIN"),
        (packed(entry("a"), entry("a")), "ARTIFACT_MALFORMED"),
        (packed(entry("a"), entry("a/b")), "ARTIFACT_MALFORMED"),
        (packed(*[entry(str(n)) for n in range(2001)]), "ARTIFACT_MALFORMED"),
        (packed(entry("bomb"), size=65 * 1024 * 1024), "ARTIFACT_TOO_LARGE"),
        (packed(entry("a"))[:-3], "ARTIFACT_MALFORMED"),
        (packed(entry("a")) + b"more", "ARTIFACT_MALFORMED"),
        (packed(), "ARTIFACT_MALFORMED"),
        (b"no archive", "ARTIFACT_MALFORMED"),
        (gzip.compress(b"no tar" * 200), "ARTIFACT_MALFORMED"),
    ],
    ids=range(15),
)
def test_an_archive_that_is_not_plain_files_leaves_nothing_behind(tmp_path: Path, archive: bytes, why: str) -> None:
    assert reason(releases.unpack, archive, tmp_path / "slot") == why
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_link_cannot_be_packed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert reason(releases.build_archive, tmp_path) == "ARTIFACT_NOT_PLAIN"
