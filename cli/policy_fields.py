"""Fields of the policy as people type and read them: `min_confidence=0.8`, `autopatch_merchants+=acme`.

Rule: what is shown can be typed again. Durations are numbers with a unit (90s, 5min, 12h, 7d), lists are joined by
commas, a freeze window is its five cron fields, its time zone, how long it lasts and why; several are parted by `;`.
Whether a value makes sense is for the patcher to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cli import formatting

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor

    from prunella.v1.patcher_pb2 import FreezeWindow, Policy

BOOKKEEPING = frozenset({"version", "etag", "update_time", "updated_by", "reason"})
YES, NO = ("true", "on", "yes"), ("false", "off", "no")
WINDOW = (
    "write the five cron fields, an IANA time zone, how long it lasts and why: 0 18 * * 5 Europe/Berlin 62h weekend"
)
CRON = 5
HINT = "FIELD=VALUE"


def names() -> list[str]:
    """The fields that people may change, in the order of the proto."""
    return [field.name for field in _fields()]


def format_value(field: str, policy: Policy) -> str:
    """The value of a field, as it could be typed; empty for an empty list."""
    found = _field(field)
    value = getattr(policy, field)
    if found.is_repeated:
        return "; ".join(_window(one) for one in value) if found.message_type else ",".join(value)
    if found.message_type:
        return _lasts(value.ToTimedelta().total_seconds())
    if found.enum_type:
        return formatting.enum_label(_enum(found), value)
    return ("on" if value else "off") if isinstance(value, bool) else f"{value:g}"


def parse_changes(policy: Policy, typed: Sequence[str]) -> tuple[Policy, list[str]]:
    """The policy with what was typed, and the fields named. Raises typer.BadParameter, saying what to type."""
    from prunella.v1.patcher_pb2 import Policy

    made = Policy()
    made.CopyFrom(policy)
    named: list[str] = []
    for text in typed:
        left, found, value = text.partition("=")
        name, sign = (left[:-1], left[-1]) if left[-1:] in ("+", "-") else (left, "")
        if not found:
            raise _wrong(f"{text!r} gives no value; write {name or 'FIELD'}=VALUE")
        if name.strip() in named:
            raise _wrong(f"{name.strip()} is given twice")
        named.append(name.strip())
        _set(made, named[-1], sign, value.strip())
    return made, named


def _set(policy: Policy, name: str, sign: str, value: str) -> None:
    field = _field(name)
    if field.is_repeated:
        held = getattr(policy, name)
        values = list(held) if sign else []
        typed_values = (
            _windows(value) if field.message_type else [one.strip() for one in value.split(",") if one.strip()]
        )
        values = (
            [one for one in values if one not in typed_values]
            if sign == "-"
            else values + [g for g in typed_values if g not in values]
        )
        del held[:]
        held.extend(values)
    elif sign:
        raise _wrong(f"{name} is no list; write {name}=VALUE")
    elif field.message_type:
        getattr(policy, name).FromTimedelta(formatting.parse_duration(value, name))
    else:
        setattr(policy, name, _one(field, value))


def _one(field: FieldDescriptor, value: str) -> Any:
    if field.enum_type:
        kind = _enum(field)
        labels = [formatting.enum_label(kind, number) for number in kind.values() if number]
        rule = f"{labels[0]} to {labels[-1]}"
        return formatting.enum_value(kind, value.lower(), field.name) if value else _bad(field.name, rule)
    if field.type == field.TYPE_BOOL:
        if value.lower() not in (*YES, *NO):
            return _bad(field.name, "on or off")
        return value.lower() in YES
    whole = field.type in (field.TYPE_INT32, field.TYPE_INT64)
    convert: Callable[[str], Any] = int if whole else float
    try:
        return convert(value.removesuffix("%").strip())
    except ValueError:
        return _bad(field.name, "a whole number" if whole else "a number")


def _enum(field: FieldDescriptor) -> Any:
    from prunella.v1 import events_pb2, patcher_pb2

    assert field.enum_type
    name = field.enum_type.name
    return getattr(patcher_pb2, name, None) or getattr(events_pb2, name)


def _windows(text: str) -> list[FreezeWindow]:
    from prunella.v1.patcher_pb2 import FreezeWindow

    found = []
    for line in filter(None, (part.strip() for part in text.split(";"))):
        parts = line.split(maxsplit=CRON + 2)
        if len(parts) < CRON + 2:
            raise _wrong(f"freeze_windows: {line!r} is no window; {WINDOW}")
        window = FreezeWindow(
            cron=" ".join(parts[:CRON]), time_zone=parts[CRON], reason=parts[CRON + 2] if len(parts) > CRON + 2 else ""
        )
        window.duration.FromTimedelta(formatting.parse_duration(parts[CRON + 1], "freeze_windows"))
        found.append(window)
    return found


def _window(window: FreezeWindow) -> str:
    lasts = _lasts(window.duration.ToTimedelta().total_seconds())
    return f"{window.cron} {window.time_zone} {lasts} {window.reason}".strip()


def _lasts(seconds: float) -> str:
    """A duration with the largest unit that leaves a whole number."""
    for unit, size in reversed(formatting.UNITS.items()):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _field(name: str) -> FieldDescriptor:
    for field in _fields():
        if field.name == name:
            return field
    import difflib

    near = difflib.get_close_matches(name, names(), 1, 0.4)
    raise _wrong(f"{name!r} is not a policy field{f'; did you mean {near[0]}?' if near else ''} See: prunella policy")


def _fields() -> list[FieldDescriptor]:
    from prunella.v1.patcher_pb2 import Policy

    return [field for field in Policy.DESCRIPTOR.fields if field.name not in BOOKKEEPING]


def _bad(name: str, rule: str) -> Any:
    raise _wrong(f"{name} must be {rule}")


def _wrong(text: str) -> Exception:
    import typer

    return typer.BadParameter(text, param_hint=HINT)
