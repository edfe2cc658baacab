"""What a strategy's step becomes, and whether its check passed. Pure.

Rule: arguments are a JSON object whose texts may hold {plugin}, {label}, {merchant}, {package} and {release} and no
other place; what is filled in are names that the plane validated, checked here again, never a word of a message. A
strategy without a check proves nothing, so it never succeeds. A comparison with something that is not there is false,
except `absent`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from libs.common import names

PLACEHOLDERS: Final = frozenset({"plugin", "label", "merchant", "package", "release"})
PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
COMPARISONS: Final = frozenset({"equals", "at_least", "at_most", "contains", "absent"})
MOST_ARGUMENTS: Final = 16 * 1024
DEEPEST: Final = 20
NOTHING: Final = object()


class BadStrategy(Exception):  # noqa: N818 - says what it means
    """The strategy cannot be carried out as it is written; the text names the field, the rule and the value."""


@dataclass(frozen=True, slots=True)
class Check:
    """How a strategy shows that it helped; `value` is what the answer's `path` is compared with."""

    path: str
    comparison: str
    value: Any


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether a check passed, what was found, and why in one sentence."""

    passed: bool
    found: Any
    explanation: str


def arguments(template: str, facts: Mapping[str, str]) -> dict[str, Any]:
    """A step's arguments, filled in. Raises BadStrategy."""
    if len(template) > MOST_ARGUMENTS:
        raise BadStrategy(f"arguments: {len(template)} characters are more than {MOST_ARGUMENTS}")
    try:
        tree = json.loads(template or "{}")
    except (ValueError, RecursionError) as error:
        raise BadStrategy(f"arguments: not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise BadStrategy("arguments: must be a JSON object")
    return {key: _fill(value, facts, DEEPEST) for key, value in tree.items()}


def check(path: str, comparison: str, value: str) -> Check:
    """A check, read. Raises BadStrategy."""
    if comparison not in COMPARISONS:
        raise BadStrategy(f"check, comparison: {comparison[:40]!r} is not one of {', '.join(sorted(COMPARISONS))}")
    try:
        wanted = json.loads(value) if value else None
    except (ValueError, RecursionError):
        raise BadStrategy(f"check, value: {value[:80]!r} is not JSON") from None
    if comparison in {"at_least", "at_most"} and not _number(wanted):
        raise BadStrategy(f"check, value: {comparison} needs a number, not {value[:80]!r}")
    return Check(path, comparison, wanted)


def evaluate(check: Check, answer: Any) -> CheckResult:
    """Whether an answer passes a check."""
    found = value_at(answer, check.path)
    field_path = check.path or "the answer"
    if check.comparison == "absent":
        passed = found is NOTHING or found is None or found in ("", [], {})
        return CheckResult(passed, _shown(found), f"{field_path} is {'absent' if passed else 'there'}")
    if found is NOTHING:
        return CheckResult(False, None, f"{field_path} is not in the answer")
    passed = _compare(check, found)
    comparison = check.comparison.replace("_", " ")
    return CheckResult(
        passed, found, f"{field_path} is {_short(found)}, {'' if passed else 'not '}{comparison} {_short(check.value)}"
    )


def value_at(tree: Any, path: str) -> Any:
    """What a dotted path leads to (whole numbers count into lists); NOTHING when it leads nowhere."""
    for part in path.split(".") if path else ():
        if isinstance(tree, Mapping) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list) and part.isdecimal() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return NOTHING
    return tree


def _compare(check: Check, found: Any) -> bool:
    if check.comparison == "equals":
        # true is not 1 here, as it is not in JSON.
        return isinstance(found, bool) == isinstance(check.value, bool) and bool(found == check.value)
    if check.comparison == "contains":
        if isinstance(found, str | Mapping):
            return isinstance(check.value, str) and check.value in found
        return isinstance(found, list) and check.value in found
    if not _number(found):
        return False
    return bool(found >= check.value if check.comparison == "at_least" else found <= check.value)


def _fill(value: Any, facts: Mapping[str, str], deep: int) -> Any:
    if deep == 0:
        raise BadStrategy(f"arguments: nested deeper than {DEEPEST}")
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda match: _fact(match[1], facts), value)
    if isinstance(value, list):
        return [_fill(item, facts, deep - 1) for item in value]
    if isinstance(value, dict):
        return {key: _fill(item, facts, deep - 1) for key, item in value.items()}
    return value


def _fact(placeholder: str, facts: Mapping[str, str]) -> str:
    if placeholder not in PLACEHOLDERS:
        allowed = ", ".join(sorted(PLACEHOLDERS))
        raise BadStrategy(f"arguments: {{{placeholder[:40]}}} is no placeholder; these are: {allowed}")
    fact = facts.get(placeholder, "")
    if not names.is_id(fact):
        raise BadStrategy(
            f"arguments: {{{placeholder}}} cannot be filled in: the report's {placeholder} is no id or name"
        )
    return fact


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(found: Any) -> Any:
    return None if found is NOTHING else found


def _short(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)[:80]
