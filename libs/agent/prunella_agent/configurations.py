"""What a configuration is, and the one place that says when it is valid.

Rule: a configuration is a JSON object, brought into canonical form (RFC 8785) so that one meaning has one digest. What
is signed names package, plugin (none: every plugin of the package), version and that digest, in a DSSE envelope that
every pinned key signed. A document that differs, or is meant for another package or plugin, is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rfc8785

from prunella_agent import dsse
from prunella_agent.archive import ReleaseError
from prunella_agent.releases import DIGEST, PACKAGE, VERSION, matches

PAYLOAD_TYPE = "application/vnd.prunella.configuration+json"
# The signed form names its fields itself, so no attribute is ever renamed in it; another form is another version.
CONFIGURATION_TYPE = "prunella.configuration/v1"
MAX_DOCUMENT = 256 * 1024
PLUGIN = re.compile(r"|[0-9A-Za-z][0-9A-Za-z._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is signed of a configuration; `digest` is the hex SHA-256 of the canonical document."""

    package: str
    version: str
    digest: str
    plugin: str = ""

    def encode(self) -> bytes:
        """The canonical bytes that are signed."""
        form = {
            "type": CONFIGURATION_TYPE,
            "package": self.package,
            "version": self.version,
            "digest": self.digest,
            "plugin": self.plugin,
        }
        return rfc8785.dumps(form)


def canonical(document: bytes) -> bytes:
    """The document in canonical form. Raises ReleaseError unless it is a JSON object of at most 256 KiB."""
    if len(document) > MAX_DOCUMENT:
        raise ReleaseError(f"{len(document)} bytes, a configuration may have {MAX_DOCUMENT}", "CONFIG_TOO_LARGE")
    try:
        parsed = json.loads(document)
        if not isinstance(parsed, dict):
            raise ReleaseError("a configuration must be a JSON object", "CONFIG_MALFORMED")
        made = rfc8785.dumps(parsed)
    except (ValueError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise ReleaseError(f"not JSON that has a canonical form: {error}", "CONFIG_MALFORMED") from error
    if len(made) > MAX_DOCUMENT:
        raise ReleaseError(f"{len(made)} bytes, a configuration may have {MAX_DOCUMENT}", "CONFIG_TOO_LARGE")
    return made


def describe(document: bytes, *, package: str, version: str, plugin: str = "") -> Configuration:
    """What is signed of a document. Raises ReleaseError when a field breaks its rule."""
    made = Configuration(package, version, hashlib.sha256(canonical(document)).hexdigest(), plugin)
    return read(made.encode())


def sign(configuration: Configuration, private_keys: Sequence[bytes]) -> bytes:
    """The envelope (JSON) of a configuration, signed by every given raw private key."""
    return dsse.seal(PAYLOAD_TYPE, configuration.encode(), private_keys)


def verify(envelope: bytes, document: bytes, pinned: Sequence[bytes]) -> tuple[Configuration, bytes]:
    """The configuration that every pinned key signed, and its document in canonical form. Raises ReleaseError."""
    configuration = read(dsse.verify(envelope, PAYLOAD_TYPE, pinned))
    made = canonical(document)
    if hashlib.sha256(made).hexdigest() != configuration.digest:
        raise ReleaseError("the document is not the one that was signed", "DIGEST_MISMATCH")
    return configuration, made


def read(payload: bytes) -> Configuration:
    """A configuration in canonical bytes, each field checked. Raises ReleaseError."""
    try:
        form = json.loads(payload)
        configuration = Configuration(form["package"], form["version"], form["digest"], form["plugin"])
        canonical_bytes = configuration.encode() == payload
    except (ValueError, TypeError, KeyError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise ReleaseError(f"not a configuration: {error}", "CONFIG_MALFORMED") from error
    rules = {
        "package": matches(PACKAGE, configuration.package),
        "version": matches(VERSION, configuration.version),
        "digest": matches(DIGEST, configuration.digest),
        "plugin": matches(PLUGIN, configuration.plugin),
    }
    wrong = [name for name, good in rules.items() if not good]
    if wrong or not canonical_bytes:
        raise ReleaseError(f"configuration: {', '.join(wrong) or 'not canonical JSON'}", "CONFIG_MALFORMED")
    return configuration


def digest(content: bytes) -> str:
    """The digest of what a file holds: of its canonical form, or of its bytes when it has none."""
    try:
        content = canonical(content)
    except ReleaseError:
        pass
    return hashlib.sha256(content).hexdigest()


class DigestCache:
    """Digests of configuration files as they are now, computed again only when a file has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: tuple[str, tuple[int, int, int], str] = ("", (0, 0, 0), "")

    def digest(self, name: str) -> str:
        """The digest of a file in the folder; empty when there is none. Whoever edits it in place is found out."""
        if not name:
            return ""
        path = self._folder / name
        try:
            seen = path.stat()
            mark = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
            if self._known[:2] != (name, mark):
                with path.open("rb") as file:
                    self._known = (name, mark, digest(file.read(MAX_DOCUMENT + 1)))
        except OSError:
            return ""
        return self._known[2]
