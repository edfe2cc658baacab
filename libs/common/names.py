"""How things are called: ids are UUIDv7, names are `collection/id`, and a plugin's shard never changes.

Releases and configurations have names of two levels: `packages/{package}/releases/{version}`.
"""

import hashlib
import re
import secrets
import time
import uuid
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


def plugin(plugin_id: str) -> str:
    """`plugins/{plugin}`."""
    return f"plugins/{plugin_id}"


def merchant(merchant_id: str) -> str:
    """`merchants/{merchant}`."""
    return f"merchants/{merchant_id}"


def incident(incident_id: str) -> str:
    """`incidents/{incident}`."""
    return f"incidents/{incident_id}"


def decision(decision_id: str) -> str:
    """`decisions/{decision}`."""
    return f"decisions/{decision_id}"


def attempt(attempt_id: str) -> str:
    """`attempts/{attempt}`."""
    return f"attempts/{attempt_id}"


def command(command_id: str) -> str:
    """`commands/{command}`."""
    return f"commands/{command_id}"


def rollout(rollout_id: str) -> str:
    """`rollouts/{rollout}`."""
    return f"rollouts/{rollout_id}"


def storm(storm_id: str) -> str:
    """`storms/{storm}`."""
    return f"storms/{storm_id}"


def operator(operator_id: str) -> str:
    """`operators/{operator}`."""
    return f"operators/{operator_id}"


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
        raise Invalid(
            f"{field} must look like {collection}/{{id}}, not {name[:80]!r}",
            reason="BAD_NAME",
            field=field,
            collection=collection,
            name=name[:80],
        )
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
        raise Invalid(
            f"{field} must look like packages/{{package}}/{collection}/{{version}}, not {name[:80]!r}",
            reason="BAD_NAME",
            field=field,
            collection=collection,
            name=name[:80],
        )
    return parts[1], parts[3]


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
