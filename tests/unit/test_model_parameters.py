"""What an endpoint refuses is asked for in the next weaker way, and this ends."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.queue.model_parameters import TOKENS, Parameters

STRICT = Parameters()


def refusal(param: str = "", message: str = "") -> str:
    return json.dumps({"error": {"message": message, "param": param}})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (refusal("temperature"), Parameters(temperature=False)),
        (refusal("", "Unsupported value: 'temperature' does not support 0"), Parameters(temperature=False)),
        (refusal("max_tokens", "use 'max_completion_tokens' instead"), Parameters(limit="max_completion_tokens")),
        (refusal("", "max_tokens is not supported"), Parameters(limit="max_completion_tokens")),
        (refusal("response_format"), Parameters(format="json_object")),
        (refusal("", "json_schema is unknown here"), Parameters(format="json_object")),
        (refusal("", "no structured outputs"), Parameters(format="json_object")),
        ("JSON mode is not available", Parameters(format="json_object")),
    ],
)
def test_what_a_refusal_names_is_weakened(body: str, expected: Parameters) -> None:
    assert STRICT.weaker(body) == expected


@pytest.mark.parametrize("body", ["", "no credit", refusal("model", "there is no such model"), refusal("messages")])
def test_what_names_nothing_that_is_sent_weakens_nothing(body: str) -> None:
    assert STRICT.weaker(body) is None


def test_each_part_is_left_out_at_last_and_then_refused_no_more() -> None:
    limit, seen = STRICT, []
    while limit is not None and len(seen) < 5:
        seen.append(limit.limit)
        limit = limit.weaker(refusal(limit.limit)) if limit.limit else None
    assert seen == ["max_tokens", "max_completion_tokens", ""]
    bare = Parameters(temperature=False, limit="", format="")
    for named in ("temperature", "max_tokens", "response_format"):
        assert bare.weaker(refusal(named)) is None
    assert Parameters(format="json_object").weaker(refusal("response_format")) == Parameters(format="")


def test_every_limit_has_a_figure() -> None:
    assert set(TOKENS) == {"max_tokens", "max_completion_tokens"}
    assert TOKENS["max_completion_tokens"] > TOKENS["max_tokens"]


@given(
    st.lists(
        st.sampled_from(["temperature", "max_tokens", "max_completion_tokens", "response_format", "x"]), max_size=30
    )
)
def test_it_only_ever_gets_weaker_so_it_ends(refusals: list[str]) -> None:
    now, steps = STRICT, 0
    for named in refusals:
        after = now.weaker(refusal(named))
        if after is not None:
            assert after != now
            now, steps = after, steps + 1
    assert steps <= 5
