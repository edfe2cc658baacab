"""An entry holds all that a fact says, in the one form that RFC 8785 allows."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from services.ops.audit import entry
from services.ops.audit.entry import Fact

FACT = Fact(
    id="01920000-0000-7000-8000-000000000001",
    time=datetime(2026, 11, 21, 12, 0, 0, 5, tzinfo=UTC),
    source="patcher",
    fact="policy_changed",
    actor="operators/ada",
    plugin="",
    merchant="",
    incident="",
    reason="quiet weekend",
    cause="",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    payload=b"\x00\xff",
    before="min_confidence=0.7",
    after="min_confidence=0.9",
)
TEXTS = st.dictionaries(
    st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=9),
    st.text(st.characters(exclude_categories=["Cs"])),
)


def test_an_entry_says_who_did_what_to_what_and_why() -> None:
    said = json.loads(entry.entry(FACT))
    assert said == {
        "v": "1",
        "id": "01920000-0000-7000-8000-000000000001",
        "time": "2026-11-21T12:00:00.000005Z",
        "source": "patcher",
        "fact": "policy_changed",
        "actor": "operators/ada",
        "resource": "plane",
        "plugin": "",
        "merchant": "",
        "incident": "",
        "reason": "quiet weekend",
        "cause": "",
        "trace": "0af7651916cd43dd8448eb211c80319c",
        "before": "min_confidence=0.7",
        "after": "min_confidence=0.9",
        "payload": base64.b64encode(b"\x00\xff").decode(),
    }


@given(TEXTS)
def test_the_encoding_is_that_of_an_independent_implementation(said: dict[str, str]) -> None:
    assert entry.encode(said) == rfc8785.dumps(said)


@pytest.mark.parametrize("name", [name for name in Fact.__slots__ if name != "payload"])
def test_no_part_of_a_fact_may_change_unseen(name: str) -> None:
    other = FACT.time + timedelta(microseconds=1) if name == "time" else "00-" + "1" * 52
    assert entry.entry(replace(FACT, **{name: other})) != entry.entry(FACT)


def test_one_moment_has_one_text() -> None:
    elsewhere = FACT.time.astimezone(timezone(timedelta(hours=5)))
    assert entry.entry(replace(FACT, time=elsewhere)) == entry.entry(FACT)
    assert len(entry.timestamp(FACT.time)) == len(entry.timestamp(datetime(2026, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize(
    ("plugin", "incident", "resource"), [("p", "i", "plugins/p"), ("", "i", "incidents/i"), ("", "", "plane")]
)
def test_the_resource_is_the_nearest_thing_the_fact_names(plugin: str, incident: str, resource: str) -> None:
    assert entry.resource(replace(FACT, plugin=plugin, incident=incident)) == resource


def test_a_difference_is_told_by_its_first_field() -> None:
    said, now = entry.fields(FACT), entry.fields(replace(FACT, reason="no reason", source="queue"))
    assert entry.difference(said, said) == ""
    assert entry.difference(said, now) == "reason was 'quiet weekend' when it was logged and is 'no reason' now"
