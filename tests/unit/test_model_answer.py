"""What models say is read as people would read it, and nothing is guessed beyond that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.queue import model_answer
from services.queue.model_answer import Offered, Unreadable

OFFERED = Offered({"process_down": ["process_answers", "relay_restart"], "timeout": []})
SAID = {
    "type": "process_down",
    "severity": "high",
    "confidence": 0.8,
    "strategy": "process_answers",
    "why": "it is gone",
}
TEXT = json.dumps(SAID)
LOUD = {
    "Type": "PROCESS-DOWN", "Severity": " High ", "Confidence": 0.8, "Strategy": "strategies/process_answers",
    "Reason": "it is gone",
}  # fmt: skip


def completion(content: Any = None, **message: Any) -> dict[str, Any]:
    return {"model": "small-1", "choices": [{"message": {"content": content, **message}}]}


def read(answer: Any) -> Any:
    return model_answer.opinion(answer, OFFERED)


@pytest.mark.parametrize(
    "answer",
    [
        completion(TEXT),
        completion(f"```json\n{TEXT}\n```"),
        completion(f"Here you are: {TEXT} I hope it helps."),
        completion(f"<think>{{\"type\": \"timeout\"}}</think>{TEXT}"),
        completion("\ufeff" + TEXT),
        completion(TEXT[:-1] + ",}"),
        completion(json.dumps({"answer": SAID})),
        completion(json.dumps([SAID])),
        completion(json.dumps(TEXT)),
        completion([{"type": "text", "text": TEXT}]),
        completion([{"type": "text", "text": TEXT[:20]}, {"type": "text", "text": TEXT[20:]}]),
        completion(parsed=SAID),
        completion(tool_calls=[{"function": {"name": "answer", "arguments": TEXT}}]),
        completion(function_call={"arguments": TEXT}),
        {"model": "small-1", "choices": [{"text": TEXT}]},
        completion(json.dumps(LOUD)),
    ],
)  # fmt: skip
def test_wherever_and_however_it_is_written(answer: Any) -> None:
    found = read(answer)
    assert (found.type, found.severity, found.confidence, found.strategy) == (
        "process_down",
        "high",
        0.8,
        "process_answers",
    )
    assert (found.explanation, found.model) == ("it is gone", "small-1")


@pytest.mark.parametrize(
    ("said", "confidence"),
    [
        (0, 0.0), (1, 1.0), (0.5, 0.5), (90, 0.9), (100, 1.0), (10, 0.1), ("0.9", 0.9), ("90", 0.9), ("90 %", 0.9),
        ("90%", 0.9), ("about 90 percent", 0.9), ("90/100", 0.9), ("0,9", 0.9), ("High", 0.85), ("very high", 0.95),
        ("MEDIUM", 0.6), ("low", 0.3), ("very-low", 0.1), ("none", 0.0), ("0.9/1", 0.9),
    ],
)  # fmt: skip
def test_how_sure_it_is(said: Any, confidence: float) -> None:
    assert model_answer.confidence(said) == pytest.approx(confidence)


@pytest.mark.parametrize(
    "said", [7, 1.5, 9.99, -1, 101, "7", "rather", "", None, True, [0.9], "nan", float("nan"), "101 %"]
)
def test_what_nobody_knows_the_meaning_of_is_no_confidence(said: Any) -> None:
    with pytest.raises(Unreadable):
        model_answer.confidence(said)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"type": "restart_everything"}, "type 'restart_everything' was not offered"),
        ({"type": 7}, "type is missing"),
        ({"severity": "apocalyptic"}, "severity 'apocalyptic' was not offered"),
        ({"strategy": "drop_database"}, "strategy 'drop_database' was not offered"),
        ({"type": "timeout"}, "strategy 'process_answers' was not offered"),
        ({"confidence": 7}, "confidence"),
        ({"confidence": None}, "confidence is missing"),
    ],
)
def test_what_was_not_offered_makes_no_answer(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Unreadable, match="^" + why[:20].replace("'", ".")) as unread:
        read(completion(json.dumps(SAID | changes)))
    assert why in str(unread.value)


@pytest.mark.parametrize("strategy", [None, "", "none", "N/A", "null", "No strategy"])
def test_no_strategy_is_an_answer(strategy: str | None) -> None:
    assert read(completion(json.dumps(SAID | {"strategy": strategy}))).strategy == ""
    assert read(completion(json.dumps(SAID | {"severity": None}))).severity == ""


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({}, "no message"),
        (None, "no message"),
        ({"choices": []}, "no message"),
        (completion(None), "its message is empty"),
        (completion(""), "its message is empty"),
        (completion("I cannot say."), "no JSON object"),
        (completion("{" * 5000), "no JSON object"),
        (completion("[]"), "no JSON object"),
        (completion(None, refusal="I must not"), "the model refuses: 'I must not'"),
        (completion([{"refusal": "no"}]), "the model refuses"),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}, "cut off"),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}, "filter"),
    ],
)
def test_why_there_is_none(answer: Any, why: str) -> None:
    with pytest.raises(Unreadable) as unread:
        read(answer)
    assert why in str(unread.value)


def test_the_last_one_that_fits_counts() -> None:
    draft = json.dumps(SAID | {"confidence": 0.2})
    assert read(completion(f"First {draft}, on reflection {TEXT}")).confidence == 0.8
    assert read(completion(f"{TEXT} and {json.dumps(SAID | {'type': 'other'})}")).confidence == 0.8


def test_what_it_says_is_one_bounded_line() -> None:
    found = read(completion(json.dumps(SAID | {"why": "a\x1b[31m\nb" + "x" * 1000})))
    assert len(found.explanation) <= model_answer.LONGEST_EXPLANATION
    assert found.explanation.isprintable()


KEYS = ["type", "choices", "message", "content", "confidence", "x"]
json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_whatever_comes_is_an_opinion_that_was_offered_or_none(answer: Any) -> None:
    for shaped in (answer, completion(answer), completion(json.dumps(answer))):
        try:
            found = read(shaped)
        except Unreadable:
            continue
        assert found.type in OFFERED.strategies
        assert 0 <= found.confidence <= 1
