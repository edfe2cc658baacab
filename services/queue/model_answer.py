"""What a model said, read as people would: the one JSON object it means, wherever and however it is written.

Rule: a completion is read for every place an answer may be in (content, parts, the arguments of a tool call), and a
text for every JSON object in it (whole, fenced, in the middle of prose, with a comma too many, as a text within a
text); the last one that fits what was asked counts. Words count whatever their case; a confidence may be a fraction, a
percentage or a word. What a number between 1 and 10 is a part of nobody knows, so it is no confidence. Nothing is ever
guessed beyond that: a type, severity or strategy that was not offered makes no answer.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.queue.report import SEVERITIES
from services.queue.triage import Opinion

LONGEST_TEXT = 64 * 1024
LONGEST_EXPLANATION = 300
MOST_OBJECTS = 50
DEEPEST = 3

_THOUGHT_ENDS = ("</think>", "</thinking>")
_COMMA = re.compile(r",(?=\s{0,100}[}\]])")
_SEPARATORS = re.compile(r"[\s_.-]+")
_NUMBER = re.compile(
    r"(?:ca\.?|about|~|≈)?\s{0,4}(\d{1,3}(?:[.,]\d{1,9})?)\s{0,4}(%|percent|per cent|/\s{0,2}(?:100|1))?"
)
_SURE = {
    "certain": 0.95, "very high": 0.95, "high": 0.85, "medium": 0.6, "moderate": 0.6, "low": 0.3, "very low": 0.1,
    "none": 0.0,
}  # fmt: skip
_WHY = ("why", "explanation", "reason", "rationale", "reasoning")
_NOTHING = frozenset({"", "none", "null", "n/a", "no strategy"})


class Unreadable(ValueError):  # noqa: N818 - a word of its own
    """Why there is no opinion in an answer."""


@dataclass(frozen=True)
class Offered:
    """What a model was offered: types with their strategies."""

    strategies: Mapping[str, Sequence[str]]


def opinion(completion: Any, offered: Offered) -> Opinion:
    """The opinion in a completion, as JSON gives it. Raises Unreadable."""
    choices = _get(completion, "choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = _get(choice, "message")
    problem = "it holds no JSON object"
    found: Opinion | None = None
    model = _get(completion, "model")
    for value in [value for place in _places(choice, message) for value in _objects(place)]:
        try:
            found = _fitting(value, offered, _line(model, 100) if isinstance(model, str) else "")
        except Unreadable as wrong:
            problem = str(wrong)
    if found is not None:
        return found
    raise Unreadable(_absence(choice, message) or problem)


def confidence(value: Any) -> float:
    """How sure, 0 to 1, from a fraction, a percentage or a word. Raises Unreadable."""
    if isinstance(value, str):
        text = value.strip().lower()
        if (word := _SEPARATORS.sub(" ", text)) in _SURE:
            return _SURE[word]
        number = _NUMBER.fullmatch(text)
        if number is None:
            raise Unreadable(f"confidence {_line(value, 40)!r} is no number")
        figure, percent = float(number[1].replace(",", ".")), bool(number[2]) and not number[2].endswith("1")
        return _fraction(figure / 100, value) if percent else _scaled(figure)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable("confidence is missing or no number")
    return _scaled(value)


def _scaled(figure: float) -> float:
    if 10 <= figure <= 100:
        return figure / 100
    return _fraction(figure, figure)


def _fraction(figure: float, given: object) -> float:
    if not 0 <= figure <= 1:
        raise Unreadable(f"confidence {_line(repr(given), 40)} is neither 0 to 1 nor 10 to 100 percent")
    return float(figure)


def _fitting(value: Mapping[str, Any], offered: Offered, model: str) -> Opinion:
    fields = {_plain(key): field for key, field in value.items()}
    type_ = _offered("type", fields.get("type"), list(offered.strategies))
    severity = fields.get("severity")
    strategy = fields.get("strategy")
    if strategy is None or _plain(str(strategy)) in _NOTHING:
        strategy = ""
    explanation = next((fields[name] for name in _WHY if fields.get(name)), "")
    return Opinion(
        type=type_,
        # Without a word on it the type's own counts.
        severity="" if severity in (None, "") else _offered("severity", severity, SEVERITIES),
        confidence=confidence(fields.get("confidence")),
        strategy=_offered("strategy", strategy, offered.strategies[type_]) if strategy else "",
        explanation=_line(
            explanation if isinstance(explanation, str) else json.dumps(explanation), LONGEST_EXPLANATION
        ),
        model=model,
    )


def _offered(field: str, value: Any, names: Sequence[str]) -> str:
    if not isinstance(value, str):
        raise Unreadable(f"{field} is missing or no text")
    wanted = _plain(value.strip().removeprefix("strategies/"))
    for name in names:
        if _plain(name) == wanted:
            return name
    raise Unreadable(f"{field} {_line(value, 40)!r} was not offered")


def _places(choice: Any, message: Any) -> Iterator[Any]:
    """Where an answer may be, the less likely places first: the last that fits counts."""
    for call in _list(_get(message, "tool_calls")):
        yield _get(_get(call, "function"), "arguments")
    yield _get(_get(message, "function_call"), "arguments")
    yield _get(choice, "text")
    yield _get(message, "parsed")
    content = _get(message, "content")
    if isinstance(content, list):
        yield from content
        yield "".join(_part(part) for part in content)
    else:
        yield content


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    text = _get(part, "text")
    text = _get(text, "value") if isinstance(text, dict) else text
    return text if isinstance(text, str) else ""


def _objects(place: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every JSON object that a place holds and that may be the answer."""
    if depth > DEEPEST:
        return
    if isinstance(place, str):
        for value in _values(place):
            yield from _objects(value, depth + 1)
    elif isinstance(place, list):
        for value in place[:MOST_OBJECTS]:
            yield from _objects(value, depth + 1)
    elif isinstance(place, dict):
        if any(_plain(str(key)) == "type" for key in place):
            yield place
        # One more object around it, as some endpoints and models put it.
        for value in list(place.values())[:MOST_OBJECTS]:
            if isinstance(value, dict | list):
                yield from _objects(value, depth + 1)


def _values(text: str) -> Iterator[Any]:
    text = text[:LONGEST_TEXT]
    for thought in _THOUGHT_ENDS:
        text = text.rpartition(thought)[2]
    text = text.strip().removeprefix("\ufeff")
    decoder = json.JSONDecoder(strict=False)
    try:
        yield decoder.decode(text)
        return
    except (ValueError, RecursionError):
        pass
    for source in dict.fromkeys((text, _COMMA.sub("", text))):
        place, tries = source.find("{"), 0
        while place >= 0 and tries < MOST_OBJECTS:
            tries += 1
            try:
                value, end = decoder.raw_decode(source, place)
                yield value
            except (ValueError, RecursionError):
                end = place + 1
            place = source.find("{", end)


def _absence(choice: Any, message: Any) -> str:
    """Why there is no answer, when the completion says so."""
    refusals = [_get(message, "refusal"), *(_get(part, "refusal") for part in _list(_get(message, "content")))]
    for refusal in refusals:
        if isinstance(refusal, str) and refusal:
            return f"the model refuses: {_line(refusal, 100)!r}"
    reason = _get(choice, "finish_reason")
    if reason in ("length", "content_filter"):
        return "it was cut off" if reason == "length" else "a filter held it back"
    if message is None:
        return "it has no message"
    return "its message is empty" if not _get(message, "content") and not _get(message, "tool_calls") else ""


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _plain(text: str) -> str:
    return _SEPARATORS.sub(" ", text.strip().strip("*`\"'!").lower())


def _line(text: str, longest: int) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 4 * longest]).split())[:longest]
