"""Fields of the policy: what is shown can be typed again, and what makes no sense is said."""

from __future__ import annotations

from datetime import timedelta

import pytest
import typer

from cli import formatting, policy_fields
from prunella.v1.patcher_pb2 import Policy

WINDOW = "0 18 * * 5 Europe/Berlin 62h the weekend"


def typed(text: str, policy: Policy | None = None) -> Policy:
    return policy_fields.parse_changes(policy or Policy(), [text])[0]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("autopatch_enabled=yes", "on"),
        ("require_staging=off", "off"),
        ("min_confidence=0.8", "0.8"),
        ("rollback_error_rate_threshold=12.5%", "12.5"),
        ("multisig_quorum=3", "3"),
        ("autopatch_max_severity=High", "high"),
        ("staging_timeout=90", "90s"),
        ("staging_timeout=5m", "5min"),
        ("attempts_window=48h", "2d"),
        ("health_check_interval=500ms", "0.5s"),
        ("autopatch_merchants=acme, bella", "acme,bella"),
        ("autopatch_merchants=", ""),
        (f"freeze_windows={WINDOW}", WINDOW),
    ],
)
def test_what_is_typed_is_shown_as_it_can_be_typed_again(text: str, shown: str) -> None:
    name = text.partition("=")[0]
    once = typed(text)
    assert policy_fields.format_value(name, once) == shown
    assert typed(f"{name}={shown}") == once


def test_lists_can_be_added_to_and_taken_from() -> None:
    held = typed("canary_merchants=acme,bella")
    assert list(typed("canary_merchants+=carla,acme", held).canary_merchants) == ["acme", "bella", "carla"]
    assert list(typed("canary_merchants-=acme", held).canary_merchants) == ["bella"]
    frozen = typed(f"freeze_windows={WINDOW}")
    both = typed("freeze_windows+=0 0 24 12 * Europe/Berlin 7d", frozen)
    assert [window.duration.ToTimedelta() for window in both.freeze_windows] == [
        timedelta(hours=62),
        timedelta(days=7),
    ]
    assert typed(f"freeze_windows-={WINDOW}", frozen) == Policy()


def test_several_windows_are_parted_by_semicolons() -> None:
    made = typed(f"freeze_windows={WINDOW}; 0 0 24 12 * Europe/Berlin 7d Christmas")
    assert [window.reason for window in made.freeze_windows] == ["the weekend", "Christmas"]
    assert made.freeze_windows[1].cron == "0 0 24 12 *"


def test_only_named_fields_are_named() -> None:
    held = typed("min_confidence=0.8")
    made, named = policy_fields.parse_changes(held, ["multisig_quorum=3", "min_confidence=0.9"])
    assert named == ["multisig_quorum", "min_confidence"]
    assert held.min_confidence == 0.8
    assert (made.multisig_quorum, made.min_confidence) == (3, 0.9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min_confidence", "gives no value; write min_confidence=VALUE"),
        ("min_confidense=0.8", "did you mean min_confidence?"),
        ("version=9", "'version' is not a policy field"),
        ("min_confidence=high", "min_confidence must be a number"),
        ("multisig_quorum=2.5", "multisig_quorum must be a whole number"),
        ("require_staging=maybe", "require_staging must be on or off"),
        ("autopatch_max_severity=odd", "use low, medium, high or critical"),
        ("autopatch_max_severity=", "low to critical"),
        ("staging_timeout=soon", "'soon' is no duration; write 90s, 5min, 12h or 7d"),
        ("freeze_windows=always", "'always' is no window; write the five cron fields"),
        ("multisig_quorum+=1", "multisig_quorum is no list"),
    ],
)
def test_what_makes_no_sense_is_said_with_what_to_type(text: str, said: str) -> None:
    with pytest.raises(typer.BadParameter) as raised:
        policy_fields.parse_changes(Policy(), [text])
    assert said in raised.value.message


def test_a_field_is_not_given_twice() -> None:
    with pytest.raises(typer.BadParameter, match="given twice"):
        policy_fields.parse_changes(Policy(), ["min_confidence=0.8", "min_confidence=0.9"])


@pytest.mark.parametrize("text", ["-5s", "1e9", "99999d", "", "5 weeks"])
def test_lengths_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no duration"):
        formatting.parse_duration(text, "--since")
