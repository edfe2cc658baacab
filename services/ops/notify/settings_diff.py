"""What differs between two versions of the settings, field by field.

Rule: a secret is told as changed, never what it was or is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from services.ops.notify.model import Settings

LISTS = ("channels", "routes", "quiet_hours")
VALUES = ("batch_window", "repeat_window", "summary_interval", "retry_for")
SECRET = frozenset({"secret", "sealed"})
LONGEST = 300


@dataclass(frozen=True, slots=True)
class Difference:
    """A field, such as channels[on-call].url, and what it was and is; empty for what is not there."""

    field: str
    before: str
    after: str


def differences(old: Settings, new: Settings) -> tuple[Difference, ...]:
    """Every field that differs."""
    found = [
        Difference(name, _text(getattr(old, name)), _text(getattr(new, name)))
        for name in VALUES
        if getattr(old, name) != getattr(new, name)
    ]
    for name in LISTS:
        found += _listed(name, {e.id: e for e in getattr(old, name)}, {e.id: e for e in getattr(new, name)})
    order = {name: [each.id for each in getattr(new, name)] for name in LISTS}
    was = {name: [each.id for each in getattr(old, name)] for name in LISTS}
    # The order of routes is no rule, yet what was typed must come back as it was typed.
    found += [
        Difference(f"{name} (order)", _text(was[name]), _text(order[name]))
        for name in LISTS
        if was[name] != order[name] and sorted(was[name]) == sorted(order[name])
    ]
    return tuple(found)


def _listed(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    found = []
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if before is None or after is None:
            found.append(Difference(f"{name}[{key}]", _text(before), _text(after)))
            continue
        for field in fields(after):
            was, is_ = getattr(before, field.name), getattr(after, field.name)
            if was != is_ and field.name != "secret":
                hidden = field.name in SECRET
                label = "secret" if hidden else field.name
                shown = ("(hidden)", "(hidden, changed)") if hidden else (_text(was), _text(is_))
                found.append(Difference(f"{name}[{key}].{label}", *shown))
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in fields(value)
            if field.name not in SECRET and getattr(value, field.name)
        }
    return value
