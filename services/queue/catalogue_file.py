"""Reading the catalogue from a file that people write (strategies.toml).

Rule: everything is checked when the service starts; each mistake is one line with file, table, field, rule and remedy.
Arguments are constants: their strings may hold {plugin}, {label}, {merchant}, {package} and {release} and no other
placeholder, so that no text of a report ever reaches a tool. A check never writes, and a tool writes everywhere or
nowhere.
"""

import hashlib
import json
import math
import re
from typing import Any

from libs.common.toml_tables import Reader
from services.queue import patterns
from services.queue.catalogue import FIELDS, Catalogue, ErrorType, TypePattern
from services.queue.patterns import Pattern
from services.queue.report import SEVERITIES
from services.queue.strategies import COMPARISONS, PLACEHOLDERS, Check, StatusRules, Step, Strategy, StrategySet

USUAL_FIELDS = ("type", "message")
MOST_TYPES = 64
MOST_PATTERNS = 40
MOST_STRATEGIES = 500
MOST_STEPS = 20
LONGEST_ARGUMENTS = 4096

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}[a-z0-9]")
_TOOL = re.compile(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,80}")
_PATH = re.compile(r"[A-Za-z0-9_-]{1,60}(?:\.[A-Za-z0-9_-]{1,60}){0,9}")
_BRACES = re.compile(r"\{[^{}]*\}|[{}]")


def parse(text: str, file: str) -> Catalogue:
    """The catalogue in `text`; `file` is what errors call it. Raises Invalid (BAD_STRATEGIES), one line per mistake."""
    reader = Reader(file, reason="BAD_STRATEGIES", variable="QUEUE_STRATEGIES")
    data = reader.parse(text)
    reader.only_fields(data, {"status", "type", "strategy"}, "the file")
    rules = _rules(reader, data.get("status", {}))
    error_types = [
        _error_type(reader, table)
        for table in reader.tables(data, "type", MOST_TYPES, "join types that are healed alike")
    ]
    strategies = [
        _strategy(reader, table, {error_type.name for error_type in error_types})
        for table in reader.tables(data, "strategy", MOST_STRATEGIES, "drop those that were retired")
    ]
    _unique(reader, "type", [error_type.name for error_type in error_types])
    _unique(reader, "strategy", [strategy.name for strategy in strategies])
    _writes_alike(reader, strategies)
    reader.raise_mistakes()
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Catalogue(version, tuple(error_types), StrategySet(tuple(strategies), rules))


def _unique(reader: Reader, table: str, found: list[str]) -> None:
    for name in sorted({name for name in found if name and found.count(name) > 1}):
        reader.wrong(f"[[{table}]] {name}", "name", "must be given once", "rename or join one of them")


def _writes_alike(reader: Reader, strategies: list[Strategy]) -> None:
    text_values: dict[str, tuple[bool, str]] = {}
    for strategy in strategies:
        for step in strategy.calls:
            write, where = text_values.setdefault(step.tool, (step.write, strategy.name))
            if step.tool and write != step.write:
                rule = f"must be the same for {step.tool} as in strategy {where}"
                reader.wrong(f"[[strategy]] {strategy.name}", "write", rule, "a tool writes everywhere or nowhere")


def _rules(reader: Reader, table: Any) -> StatusRules:
    where = "[status]"
    if not isinstance(table, dict):
        reader.wrong("the file", "status", "must be a table", f"write {where}")
        return StatusRules()
    usual = {name: getattr(StatusRules(), name) for name in StatusRules.__dataclass_fields__}
    reader.only_fields(table, set(usual), where)
    read: dict[str, Any] = {}
    for name, value in usual.items():
        if name.endswith("_confidence"):
            read[name] = reader.number(table, name, where, lambda v: 0 < v < 1, "above 0 and below 1", value)
        else:
            read[name] = int(reader.number(table, name, where, _whole_number, "a whole number from 1 on", value))
    rules = StatusRules(**read)
    if not rules.retire_confidence <= rules.demote_confidence <= rules.promote_confidence:
        reader.wrong(
            where, "promote_confidence", "must not be below demote_, nor that below retire_", "order the three"
        )
    return rules


def _whole_number(value: float) -> bool:
    return 1 <= value <= 1_000_000 and value == int(value)


def _named(reader: Reader, table: dict[str, Any], where: str) -> str:
    name = table.get("name")
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    reader.wrong(
        f"[[{where}]] {str(name)[:64]!r}", "name", "must be 2 to 64 of a-z, 0-9 and _", 'write name = "disk_full"'
    )
    return ""


def _error_type(reader: Reader, table: dict[str, Any]) -> ErrorType:
    name = _named(reader, table, "type")
    where = f"[[type]] {name}"
    reader.only_fields(table, {"name", "title", "severity", "confidence", "fields", "patterns"}, where)
    sure = reader.number(table, "confidence", where, _certain, "above 0 and at most 1", math.nan)
    values = table.get("patterns")
    if not isinstance(values, list) or not 1 <= len(values) <= MOST_PATTERNS:
        reader.wrong(where, "patterns", f"must be a list of 1 to {MOST_PATTERNS}", 'write patterns = ["disk full"]')
        values = []
    return ErrorType(
        name,
        reader.text(table, "title", where),
        reader.choice(table, "severity", where, frozenset(SEVERITIES)),
        _fields(reader, table, where),
        tuple(type_pattern for entry in values if (type_pattern := _type_pattern(reader, entry, where, sure))),
    )


def _certain(value: float) -> bool:
    return 0 < value <= 1


def _fields(reader: Reader, table: dict[str, Any], where: str) -> tuple[str, ...]:
    values = table.get("fields", list(USUAL_FIELDS))
    if isinstance(values, list) and values and all(isinstance(name, str) and name in FIELDS for name in values):
        return tuple(dict.fromkeys(values))
    reader.wrong(where, "fields", f"must be a list of some of {', '.join(FIELDS)}", f"it was {values!r}")
    return USUAL_FIELDS


def _type_pattern(reader: Reader, entry: Any, where: str, sure: float) -> TypePattern | None:
    text = entry
    if isinstance(entry, dict):
        reader.only_fields(entry, {"text", "confidence"}, f"{where}, patterns")
        sure = reader.number(entry, "confidence", f"{where}, patterns", _certain, "above 0 and at most 1", math.nan)
        text = entry.get("text")
    pattern = _pattern(reader, text, where)
    return TypePattern(pattern, sure) if pattern else None


def _pattern(reader: Reader, text: Any, where: str) -> Pattern | None:
    if not isinstance(text, str):
        reader.wrong(where, "patterns", "must be texts", 'write patterns = ["disk full"]')
        return None
    try:
        return patterns.read(text)
    except ValueError as error:
        reader.wrong(where, "patterns", f"holds {text[:80]!r}, which {error}", "see services/queue/patterns.py")
        return None


STRATEGY = {
    "name", "title", "type", "package", "auto_fixable", "patterns", "prior", "confidence", "weight",
    "estimated_seconds", "step", "check",
}  # fmt: skip


def _strategy(reader: Reader, table: dict[str, Any], error_types: set[str]) -> Strategy:
    name = _named(reader, table, "strategy")
    where = f"[[strategy]] {name}"
    reader.only_fields(table, STRATEGY, where)
    fixable = table.get("auto_fixable", True)
    if not isinstance(fixable, bool):
        reader.wrong(where, "auto_fixable", "must be true or false", f"it was {fixable!r}")
    narrowed = table.get("patterns", [])
    if not isinstance(narrowed, list) or len(narrowed) > MOST_PATTERNS:
        reader.wrong(where, "patterns", f"must be a list of at most {MOST_PATTERNS}", 'write patterns = ["disk full"]')
        narrowed = []
    seconds = 0.0
    if "estimated_seconds" in table:
        seconds = reader.number(table, "estimated_seconds", where, lambda v: 0 < v <= 86_400, "1 to 86400", math.nan)
    return Strategy(
        name=name,
        title=reader.text(table, "title", where),
        type=reader.choice(table, "type", where, frozenset(error_types)),
        steps=_steps(reader, table, where),
        check=_check(reader, table.get("check"), where),
        prior=reader.prior(table, where),
        package=reader.text(table, "package", where, default="", longest=128),
        auto_fixable=fixable is True,
        patterns=tuple(read for text in narrowed if (read := _pattern(reader, text, where))),
        declared_seconds=seconds,
    )


def _steps(reader: Reader, table: dict[str, Any], where: str) -> tuple[Step, ...]:
    values = table.get("step", [])
    if not isinstance(values, list) or not all(isinstance(step, dict) for step in values) or len(values) > MOST_STEPS:
        reader.wrong(where, "step", f"must be at most {MOST_STEPS} tables", "write [[strategy.step]] above each")
        return ()
    return tuple(_step(reader, step, f"{where}, step {number}", set()) for number, step in enumerate(values, 1))


def _step(reader: Reader, table: dict[str, Any], where: str, more: set[str]) -> Step:
    reader.only_fields(table, {"tool", "arguments", "purpose"} | (more or {"write"}), where)
    tool = table.get("tool")
    if not isinstance(tool, str) or not _TOOL.fullmatch(tool):
        reader.wrong(where, "tool", "must be server.tool", 'write tool = "relay.status"')
        tool = ""
    write = table.get("write", False)
    if not isinstance(write, bool):
        reader.wrong(where, "write", "must be true or false", f"it was {write!r}")
    purpose = reader.text(table, "purpose", where, default="")
    return Step(tool, _arguments(reader, table, where), write is True and not more, purpose)


def _arguments(reader: Reader, table: dict[str, Any], where: str) -> str:
    values = table.get("arguments", {})
    text = _json(values)
    if not isinstance(values, dict) or not text or len(text) > LONGEST_ARGUMENTS:
        rule = f"must be a table of JSON values, at most {LONGEST_ARGUMENTS} characters"
        reader.wrong(where, "arguments", rule, 'write arguments = { plugin = "{plugin}" }')
        return "{}"
    for text_values in _strings(values):
        for found in _BRACES.findall(text_values):
            if found[1:-1] not in PLACEHOLDERS:
                allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                reader.wrong(where, "arguments", f"holds {found[:40]!r}", f"only {allowed} are filled in")
    return text


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError):
        return ""


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        # A name is no place for a value, so its braces are refused like any other.
        return [f"{key}}}" if set(key) & set("{}") else key for key in value] + [
            text for inner in value.values() for text in _strings(inner)
        ]
    if isinstance(value, list):
        return [text for inner in value for text in _strings(inner)]
    return []


def _check(reader: Reader, table: Any, where: str) -> Check:
    where = f"{where}, check"
    if not isinstance(table, dict):
        reader.wrong(where, "check", "is needed", "write [strategy.check] with tool, path, comparison and value")
        return Check(Step(""), "", "")
    step = _step(reader, table, where, {"path", "comparison", "value"})
    path = table.get("path")
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        reader.wrong(where, "path", "must be names joined by dots", 'write path = "health"')
    comparison = reader.choice(table, "comparison", where, COMPARISONS)
    value = table.get("value")
    absent = comparison == "absent"
    if absent and value is not None:
        reader.wrong(where, "value", "means nothing for absent", "leave it out")
    elif comparison and not absent and (value is None or not _json(value)):
        reader.wrong(where, "value", f"is needed for {comparison}", "write what the answer is compared with")
    elif comparison in ("at_least", "at_most") and (isinstance(value, bool) or not isinstance(value, (int, float))):
        reader.wrong(where, "value", f"must be a number for {comparison}", f"it was {value!r}")
    return Check(step, str(path), comparison, _json(value))
