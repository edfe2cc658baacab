"""Figures, times and ids as people read and type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cli import formatting, id_lookup
from cli.output import safe
from libs.common.errors import Invalid, NotFound
from prunella.v1.agent_pb2 import Health
from prunella.v1.events_pb2 import Action, DecisionMade, Severity

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = "0197a3b2-4c5d-7000-8000-00009f3a2b1c"
SECOND = "0197a3b2-4c5d-7111-8000-0000deadbeef"


def stamp(moment: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(moment)
    return made


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.0000005, "0 µs"),
        (0.00025, "250 µs"),
        (0.025, "25 ms"),
        (9, "9.0 s"),
        (42.4, "42 s"),
        (120, "2.0 min"),
        (7200, "2.0 h"),
        (3e6, "35 d"),
    ],
)
def test_durations_come_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert formatting.duration(seconds) == said


def test_moments_are_told_from_now() -> None:
    assert formatting.ago(stamp(NOW - timedelta(seconds=5)), NOW) == "5.0 s ago"
    assert formatting.ago(stamp(NOW + timedelta(minutes=3)), NOW) == "in 3.0 min"
    assert formatting.ago(stamp(NOW), NOW) == "now"
    assert formatting.ago(Timestamp(), NOW) == "—"


def test_what_has_not_ended_took_nothing_yet() -> None:
    assert formatting.elapsed(stamp(NOW), stamp(NOW + timedelta(seconds=9))) == "9.0 s"
    assert formatting.elapsed(stamp(NOW), Timestamp()) == "—"


def test_enums_are_said_without_their_name() -> None:
    assert formatting.enum_label(Severity, 2) == "medium"
    assert formatting.enum_label(Action, 2) == "config_fix"
    assert formatting.enum_label(Health, 0) == "—"


def test_a_remedy_is_said_with_the_release_it_leads_to() -> None:
    assert (
        formatting.action_summary(DecisionMade(action=1, from_release="1.2.0", release="1.2.3"), Action)
        == "patch 1.2.0 → 1.2.3"
    )
    assert formatting.action_summary(DecisionMade(action=4), Action) == "restart"


@pytest.mark.parametrize("typed", [FIRST[:16], FIRST[-8:], "9f3a2b1c", "2b1c"])
def test_an_id_is_found_by_its_beginning_or_end(typed: str) -> None:
    assert id_lookup.match("incidents", typed, [f"incidents/{FIRST}", f"incidents/{SECOND}"]) == FIRST


def test_what_fits_several_ids_is_refused_with_the_candidates() -> None:
    with pytest.raises(Invalid, match="fits 2 incidents") as refused:
        id_lookup.match("incidents", "0197a3b2", [f"incidents/{FIRST}", f"incidents/{SECOND}"])
    assert FIRST in refused.value.message


def test_what_fits_none_says_where_to_look() -> None:
    with pytest.raises(NotFound, match="see: prunella attempts"):
        id_lookup.match("attempts", "ffff", [f"attempts/{FIRST}"])


def test_too_little_of_an_id_is_refused() -> None:
    with pytest.raises(Invalid, match="too short"):
        id_lookup.match("attempts", "1c", [f"attempts/{FIRST}"])


@pytest.mark.parametrize("typed", [FIRST.upper(), f"incidents/{FIRST}", f"  {FIRST} "])
def test_whole_names_and_ids_are_taken_as_they_are(typed: str) -> None:
    assert id_lookup.typed_id("incidents", typed) == FIRST


def test_dots_that_lists_put_before_an_end_are_no_part_of_it() -> None:
    assert id_lookup.typed_id("incidents", "…9f3a2b1c") == "9f3a2b1c"
    assert id_lookup.typed_id("incidents", "0197a3b2...") == "0197a3b2"


def test_text_from_elsewhere_neither_colours_nor_moves_the_terminal() -> None:
    assert safe("[red]\x1b[2Jboo\n") == "\\[red] [2Jboo "
