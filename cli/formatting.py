"""Figures, times and enum values as people read and type them. Pure: the time of reading is an argument."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

NO_VALUE = "—"
# Units of durations as people type them, in seconds, from the smallest.
UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)?")
LONGEST = 3650 * 86_400.0


def to_datetime(stamp: Any) -> datetime | None:
    """A protobuf timestamp as a datetime; None when it is not set."""
    if not stamp.seconds and not stamp.nanos:
        return None
    found = stamp.ToDatetime(UTC)
    assert isinstance(found, datetime)
    return found


def duration(seconds: float) -> str:
    """A duration, in the unit that fits."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs" if seconds > 0 else "0 s"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def ago(stamp: Any, now: datetime) -> str:
    """How long ago a time was; a dash when it is not set."""
    when = to_datetime(stamp)
    if when is None:
        return NO_VALUE
    seconds = (now - when).total_seconds()
    return "now" if -1 < seconds < 1 else f"{duration(seconds)} ago" if seconds > 0 else f"in {duration(-seconds)}"


def elapsed(start: Any, end: Any) -> str:
    """How long something took; a dash when one of its ends is not set."""
    first, last = to_datetime(start), to_datetime(end)
    return duration(max(0.0, (last - first).total_seconds())) if first and last else NO_VALUE


def byte_size(count: int) -> str:
    """Bytes, in the unit that fits."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def enum_label(enum: Any, value: int) -> str:
    """A protobuf enum value as a lower-case word, without the enum's name."""
    name: str = enum.Name(value)
    prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in enum.DESCRIPTOR.name)
    label = name.removeprefix(prefix.lstrip("_") + "_").lower()
    return NO_VALUE if label == "unspecified" else label


def plugin_state(plugin: Any) -> str:
    """How a plugin is, in a word: its health, or that it is away, quarantined or retired."""
    from prunella.v1.agent_pb2 import Health

    if plugin.state != "active":
        return str(plugin.state)
    return "away" if plugin.away else enum_label(Health, plugin.health)


def action_summary(attempt: Any, enum: Any) -> str:
    """What an attempt or a decision does, such as `patch 1.2.0 → 1.2.3`."""
    action = enum_label(enum, attempt.action)
    if configuration := getattr(attempt, "configuration", ""):
        return f"{action} → configuration {configuration}"
    target = getattr(attempt, "to_release", "") or getattr(attempt, "release", "")
    source = getattr(attempt, "from_release", "")
    if not target or target == source:
        return action
    return f"{action} {source} → {target}" if source else f"{action} → {target}"


def enum_value(enum: Any, text: str, option: str) -> int:
    """The value of a protobuf enum by its lower-case word; 0 for an empty one. Raises typer.BadParameter."""
    import typer

    prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in enum.DESCRIPTOR.name)
    known = {name: enum_label(enum, value) for name, value in enum.items() if value}
    if not text:
        return 0
    name = f"{prefix.lstrip('_')}_{text.upper().replace('-', '_')}"
    if name not in known:
        *some, last = known.values()
        raise typer.BadParameter(f"use {', '.join(some)} or {last}", param_hint=option)
    return int(enum.Value(name))


def severity_value(text: str) -> int:
    """What `--severity` says; 0 for an empty one. Raises typer.BadParameter."""
    from prunella.v1.events_pb2 import Severity

    return enum_value(Severity, text, "--severity")


def proto_duration(value: Any) -> str:
    """A protobuf duration, in the unit that fits; a dash when it is not set."""
    seconds = value.ToTimedelta().total_seconds()
    return duration(seconds) if seconds else NO_VALUE


def plural(number: int, what: str) -> str:
    """So many of something, such as `1 task`, `2 tasks` or `2 people`."""
    if number == 1:
        return f"1 {what}"
    return f"{number} {'people' if what == 'person' else what + 's'}"


def parse_duration(text: str, option: str) -> timedelta:
    """A duration as people type it: 90s, 5min (or 5m), 12h, 7d; a bare number is seconds. Raises typer.BadParameter."""
    import typer

    found = DURATION.fullmatch(text.strip().lower())
    seconds = float(found[1]) * UNITS[{"m": "min", None: "s"}.get(found[2], found[2])] if found else -1.0
    if not 0.0 <= seconds <= LONGEST:
        raise typer.BadParameter(f"{text!r} is no duration; write 90s, 5min, 12h or 7d", param_hint=option)
    return timedelta(seconds=seconds)


def percent(rate: float) -> str:
    """A share of one in percent."""
    return f"{rate * 100:.0f} %" if rate in (0.0, 1.0) else f"{rate * 100:.1f} %"
