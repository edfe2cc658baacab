"""How things are called: ids are UUIDv7, names are `collection/id`, and a plugin's shard never changes.

Releases and configurations have names of two levels: `packages/{package}/releases/{version}`.
"""

import hashlib
import re
import secrets
import time
import uuid
from collections.abc import Callable
from datetime import datetime

from libs.common.errors import Invalid

SHARDS = 16

_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,126}[A-Za-z0-9])?")


def new_id(at: datetime | None = None) -> str:
    """A fresh UUIDv7 (RFC 9562): sorts by creation time, to a quarter of a microsecond within one process."""
    nanoseconds = time.time_ns() if at is None else round(at.timestamp() * 1_000_000) * 1000
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    fraction = (rest << 12) // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def shard(plugin_id: str) -> int:
    """Which of the 16 shards a plugin's facts travel on; the same in every process and release."""
    return int.from_bytes(hashlib.sha256(plugin_id.encode()).digest()[:8], "big") % SHARDS


def _in(collection: str) -> Callable[[str], str]:
    """Makes names of one collection: the id becomes `{collection}/{id}`."""
    return lambda id_: f"{collection}/{id_}"


plugin = _in("plugins")
merchant = _in("merchants")
incident = _in("incidents")
decision = _in("decisions")
attempt = _in("attempts")
command = _in("commands")
rollout = _in("rollouts")
storm = _in("storms")
operator = _in("operators")


def release(package: str, version: str) -> str:
    """`packages/{package}/releases/{version}`."""
    return f"packages/{package}/releases/{version}"


def configuration(package: str, version: str) -> str:
    """`packages/{package}/configurations/{version}`."""
    return f"packages/{package}/configurations/{version}"


def parse(collection: str, name: str, *, field: str = "name") -> str:
    """The id in `collection/id`; Invalid when the name is of another shape."""
    head, _, rest = name.partition("/")
    if head != collection or not _ID.fullmatch(rest):
        raise _bad_name(f"{collection}/{{id}}", collection, name, field)
    return rest


def parse_release(name: str, *, field: str = "name") -> tuple[str, str]:
    """Package and version of `packages/{package}/releases/{version}`; Invalid when the name is of another shape."""
    return _parse_version("releases", name, field)


def parse_configuration(name: str, *, field: str = "name") -> tuple[str, str]:
    """Package and version of `packages/{package}/configurations/{version}`; Invalid for a name of another shape."""
    return _parse_version("configurations", name, field)


def _parse_version(collection: str, name: str, field: str) -> tuple[str, str]:
    parts = name.split("/")
    shaped = len(parts) == 4 and parts[0] == "packages" and parts[2] == collection
    if not shaped or not _ID.fullmatch(parts[1]) or not _ID.fullmatch(parts[3]):
        raise _bad_name(f"packages/{{package}}/{collection}/{{version}}", collection, name, field)
    return parts[1], parts[3]


def _bad_name(shape: str, collection: str, name: str, field: str) -> Invalid:
    message = f"{field} must look like {shape}, not {name[:80]!r}"
    return Invalid(message, reason="BAD_NAME", field=field, collection=collection, name=name[:80])


def id_of(name: str) -> str:
    """The id at the end of a name, where callers may write `collection/id` or the id alone."""
    return name.rpartition("/")[2]


def is_uuid(text: str) -> bool:
    """Whether a text can be looked up as a UUID; only the usual form with hyphens can."""
    if len(text) != 36:
        return False
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def is_id(text: str) -> bool:
    """Whether the text can stand as an id or a label in a name."""
    return _ID.fullmatch(text) is not None
