"""What a release is, and the one place that says when it is valid.

Rule: a release is a manifest (RFC 8785 JSON) in a DSSE envelope that every pinned key signed. The manifest names digest
and size of the artifact; bytes that differ are refused. There is no switch that turns any of this off.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import rfc8785

from prunella_agent import dsse, requirements
from prunella_agent.archive import MAX_PACKED, ReleaseError, build_archive, sync_folder, unpack
from prunella_agent.dsse import generate_key, key_id, pre_authentication, public_key

__all__ = [
    "MAX_PACKED", "PAYLOAD_TYPE", "REQUIREMENT_UNMET", "Manifest", "ReleaseError", "build_archive", "check_artifact",
    "check_requirements", "describe", "generate_key", "key_id", "open_envelope", "pre_authentication", "public_key",
    "read_manifest", "sign", "sync_folder", "unpack", "verify",
]  # fmt: skip

PAYLOAD_TYPE = "application/vnd.prunella.release+json"
# The signed form names its fields itself, so no attribute is ever renamed in it; another form is another version.
MANIFEST_TYPE = "prunella.release/v1"
# How an agent begins its word on a release that this host cannot run.
REQUIREMENT_UNMET = "REQUIREMENT_UNMET"
PACKAGE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a release is made of and how it is run. Commands whose first argument is `python` use the running one."""

    package: str
    version: str
    digest: str
    size: int
    entrypoint: tuple[str, ...]
    probe: tuple[str, ...] = ()
    smoke: tuple[str, ...] = ()
    # What it needs of a host: name → clauses such as `>=3.11,<4`. Not part of the signed form when there is nothing.
    requires: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The canonical bytes that are signed."""
        form: dict[str, Any] = {
            "type": MANIFEST_TYPE,
            "package": self.package,
            "version": self.version,
            "digest": self.digest,
            "size": self.size,
            "entrypoint": list(self.entrypoint),
            "probe": list(self.probe),
            "smoke": list(self.smoke),
        }
        if self.requires:
            form["requires"] = dict(self.requires)
        return rfc8785.dumps(form)


def describe(
    artifact: bytes,
    *,
    package: str,
    version: str,
    entrypoint: Sequence[str] = ("python", "main.py"),
    probe: Sequence[str] = ("python", "probe.py"),
    smoke: Sequence[str] = ("python", "smoke.py"),
    requires: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest of an artifact. Raises ReleaseError when a field breaks its rule."""
    digest = hashlib.sha256(artifact).hexdigest()
    commands = tuple(entrypoint), tuple(probe), tuple(smoke)
    manifest = Manifest(package, version, digest, len(artifact), *commands, dict(requires or {}))
    return read_manifest(manifest.encode())


def sign(manifest: Manifest, private_keys: Sequence[bytes]) -> bytes:
    """The DSSE envelope (JSON) of a manifest, signed by every given raw private key."""
    return dsse.seal(PAYLOAD_TYPE, manifest.encode(), private_keys)


def verify(envelope: bytes, pinned: Sequence[bytes]) -> Manifest:
    """The manifest inside an envelope that every pinned key signed. Raises ReleaseError."""
    return read_manifest(dsse.verify(envelope, PAYLOAD_TYPE, pinned))


def open_envelope(envelope: bytes) -> tuple[bytes, list[bytes]]:
    """Payload and signatures of a release's envelope, not yet verified. Raises ReleaseError."""
    return dsse.open_envelope(envelope, PAYLOAD_TYPE)


def check_artifact(manifest: Manifest, artifact: bytes) -> None:
    """Raises ReleaseError unless the bytes are the ones the manifest names."""
    if len(artifact) != manifest.size:
        raise ReleaseError(f"{len(artifact)} bytes, the manifest says {manifest.size}", "SIZE_MISMATCH")
    if hashlib.sha256(artifact).hexdigest() != manifest.digest:
        raise ReleaseError("the artifact is not the one that was signed", "DIGEST_MISMATCH")


def check_requirements(manifest: Manifest, environment: Mapping[str, str]) -> None:
    """Raises ReleaseError unless the host of this environment has what the release requires."""
    lacking = requirements.unmet(manifest.requires, environment)
    if lacking:
        raise ReleaseError(requirements.sentence(manifest.version, lacking), REQUIREMENT_UNMET)


def read_manifest(payload: bytes) -> Manifest:
    """The manifest in canonical bytes, each field checked. Raises ReleaseError."""
    try:
        form: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(payload).items()}
        form.setdefault("requires", {})
        names = ("package", "version", "digest", "size", "entrypoint", "probe", "smoke", "requires")
        manifest = Manifest(*(form[name] for name in names))
        canonical = manifest.encode() == payload
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise ReleaseError(f"not a release manifest: {error}", "MANIFEST_MALFORMED") from error
    wrong = [name for name, good in rules(manifest).items() if not good]
    if wrong or not canonical:
        raise ReleaseError(f"manifest: {', '.join(wrong) or 'not canonical JSON'}", "MANIFEST_MALFORMED")
    return manifest


def rules(manifest: Manifest) -> dict[str, bool]:
    """Field → whether it keeps its rule."""
    return {
        "package": matches(PACKAGE, manifest.package),
        "version": matches(VERSION, manifest.version),
        "digest": matches(DIGEST, manifest.digest),
        "size": type(manifest.size) is int and 0 < manifest.size <= MAX_PACKED,
        "entrypoint": is_command(manifest.entrypoint) and len(manifest.entrypoint) > 0,
        "probe": is_command(manifest.probe),
        "smoke": is_command(manifest.smoke),
        "requires": requirements.well_formed(manifest.requires),
    }


def matches(pattern: re.Pattern[str], value: object) -> bool:
    """Whether a value is a string of this pattern from end to end."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def is_command(arguments: object) -> bool:
    """Whether a value is a list of up to 32 usable arguments."""
    return (
        isinstance(arguments, tuple)
        and len(arguments) <= 32
        and all(isinstance(one, str) and 0 < len(one) <= 1024 and "\0" not in one for one in arguments)
    )
