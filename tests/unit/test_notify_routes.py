"""Routes: who hears of a fact; and settings that make no sense, each mistake with its field."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid
from libs.common.facts import NAMES
from services.ops.decoded_fact import DecodedFact
from services.ops.headlines import HEADLINES
from services.ops.notify import defaults
from services.ops.notify.addresses import redacted_url, with_secret
from services.ops.notify.model import (
    Audience,
    Channel,
    EscalationStep,
    Kind,
    Notice,
    QuietHours,
    Route,
    Security,
    Settings,
)
from services.ops.notify.routes import fact_kinds, matching
from services.ops.notify.settings_diff import differences
from services.ops.notify.validation import check
from services.ops.severity import Severity

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
KEY = "whsec_" + "a" * 43 + "="
HOOK = Channel("hook", Kind.WEBHOOK, url="https://hooks.example.com/prunella", secret=KEY)
MAIL = Channel(
    "mail", Kind.EMAIL, host="smtp.example.com", port=587, sender="prunella@example.com", recipients=("a@example.com",)
)
CHAT = Channel("chat", Kind.SLACK, url="https://hooks.slack.com/…", secret="https://hooks.slack.com/services/T/B/x")
STEPS = (EscalationStep(("hook",), timedelta(minutes=5)), EscalationStep(("mail",)))
ROUTE = Route("ops", STEPS)
NIGHT = QuietHours("night", "Europe/Berlin", "22:00", "07:00")
GOOD = Settings(channels=(HOOK, MAIL, CHAT), routes=(ROUTE,), quiet_hours=(NIGHT,))


def notice(fact: str = "incident_escalated", severity: Severity = Severity.HIGH, **given: Any) -> Notice:
    return Notice("e1", NOW, fact, severity, "shop-7: a person is asked", f"{fact}:1", **given)


def decoded(fact: str, incident: str = "", **fields: Any) -> DecodedFact:
    return DecodedFact("e1", NOW, fact, "patcher", "because", "shop-7", "p1", "m1", incident, fields)


def test_the_catalogue_names_facts_that_exist_and_none_of_its_own() -> None:
    listed = defaults.FOR_OPERATORS | defaults.FOR_MERCHANTS | set(defaults.SEVERITIES)
    assert listed <= NAMES
    assert defaults.NEVER_NOTIFIED <= NAMES
    assert not listed & defaults.NEVER_NOTIFIED
    assert {name for name in HEADLINES if name.startswith("notification_")} == defaults.NEVER_NOTIFIED


@pytest.mark.parametrize(
    ("fact", "fields", "severity"),
    [
        ("incident_escalated", {"severity": "critical"}, Severity.CRITICAL),
        ("incident_escalated", {"severity": "low"}, Severity.LOW),
        ("incident_escalated", {}, Severity.HIGH),
        ("attempt_unconfirmed", {}, Severity.CRITICAL),
        ("approval_requested", {}, Severity.MEDIUM),
        ("incident_mitigated", {"severity": "unspecified"}, Severity.LOW),
    ],
)
def test_a_fact_has_its_own_severity_or_that_of_its_kind(fact: str, fields: dict[str, Any], severity: Severity) -> None:
    assert defaults.severity(decoded(fact, **fields)) is severity


def test_the_same_news_has_the_same_key_and_two_plans_are_two_questions() -> None:
    def key(fact: str, incident: str = "i1", **fields: Any) -> str:
        return defaults.dedup_key(decoded(fact, incident, **fields))

    assert key("incident_escalated", round=1) == key("incident_escalated", round=2)
    assert key("incident_escalated") != key("incident_escalated", severity="critical")
    assert key("incident_escalated") != key("attempt_unconfirmed")
    assert key("approval_requested", plan_hash="a") != key("approval_requested", plan_hash="b")
    assert key("storm_started", "", storm="s1") != key("storm_started", "", storm="s2")
    assert key("plugin_quarantined", "") == "plugin_quarantined:p1"


@pytest.mark.parametrize(
    ("route", "matches"),
    [
        (ROUTE, True),
        (replace(ROUTE, min_severity=Severity.HIGH), True),
        (replace(ROUTE, min_severity=Severity.CRITICAL), False),
        (replace(ROUTE, facts=("incident_escalated",)), True),
        (replace(ROUTE, facts=("storm_started",)), False),
        (replace(ROUTE, merchants=("m1",)), True),
        (replace(ROUTE, merchants=("m2", "m3")), False),
        (replace(ROUTE, merchants=("m1",), audience=Audience.MERCHANTS), False),
    ],
)
def test_a_route_tells_what_fits_its_kinds_severity_and_merchants(route: Route, matches: bool) -> None:
    assert matching(replace(GOOD, routes=(route,)), notice(merchant="m1")) == ([route] if matches else [])


def test_a_merchant_hears_of_patches_that_worked_and_of_nothing_that_is_not_theirs() -> None:
    route = Route("m1", STEPS, merchants=("m1",), audience=Audience.MERCHANTS)
    settings = replace(GOOD, routes=(route,))
    assert matching(settings, notice("attempt_succeeded", Severity.LOW, merchant="m1", action="patch"))
    assert matching(settings, notice("incident_mitigated", Severity.LOW, merchant="m1"))
    assert not matching(settings, notice("attempt_succeeded", Severity.LOW, merchant="m1", action="restart"))
    assert not matching(settings, notice("incident_mitigated", Severity.LOW, merchant="m2"))
    # A fact about the whole plane belongs to no merchant.
    assert not matching(replace(settings, routes=(replace(route, facts=("storm_started",)),)), notice("storm_started"))


def test_a_fact_goes_to_every_route_it_fits_and_without_routes_it_is_recorded() -> None:
    both = (ROUTE, replace(ROUTE, id="second"))
    assert matching(replace(GOOD, routes=both), notice()) == list(both)
    (recorded,) = matching(Settings(), notice())
    assert (recorded.id, recorded.steps) == ("", ())
    assert fact_kinds(Settings()) == defaults.FOR_OPERATORS


@given(
    facts=st.lists(st.sampled_from(sorted(NAMES)), max_size=5), fact=st.sampled_from(sorted(defaults.NEVER_NOTIFIED))
)
def test_what_notifications_tell_of_themselves_is_never_heard(facts: list[str], fact: str) -> None:
    settings = replace(GOOD, routes=(replace(ROUTE, facts=(*facts, fact)),))
    assert not fact_kinds(settings) & defaults.NEVER_NOTIFIED
    assert matching(settings, notice(fact, Severity.CRITICAL)) == []


def with_channel(**changed: Any) -> Settings:
    return replace(GOOD, channels=(replace(HOOK, **changed), MAIL, CHAT))


def with_mail(**changed: Any) -> Settings:
    return replace(GOOD, channels=(HOOK, replace(MAIL, **changed), CHAT))


def with_route(**changed: Any) -> Settings:
    return replace(GOOD, routes=(replace(ROUTE, **changed),))


def with_night(**changed: Any) -> Settings:
    return replace(GOOD, quiet_hours=(replace(NIGHT, **changed),))


WRONG: dict[str, tuple[Settings, str]] = {
    "no scheme": (with_channel(url="hooks.example.com"), "channels[0].url"),
    "another scheme": (with_channel(url="file:///etc/passwd"), "channels[0].url"),
    "no host": (with_channel(url="https://"), "channels[0].url"),
    "a port that is none": (with_channel(url="https://a.example:99999/"), "channels[0].url"),
    "a password in the address": (with_channel(url="https://u:p@a.example/"), "channels[0].url"),
    "a newline": (with_channel(url="https://a.example/\nx"), "channels[0].url"),
    "no signing key": (with_channel(secret=""), "channels[0].secret"),
    "a short signing key": (with_channel(secret="whsec_YWJj"), "channels[0].secret"),
    "an id with spaces": (with_channel(id="on call"), "channels[0].id"),
    "two of one id": (replace(GOOD, channels=(HOOK, MAIL, CHAT, MAIL)), "channels[3].id"),
    "too many": (replace(GOOD, channels=tuple(replace(HOOK, id=f"c{n}") for n in range(51))), "channels"),
    "a recipient that is none": (with_mail(recipients=("a@example.com", "nobody")), "channels[1].recipients"),
    "a header smuggled in": (with_mail(recipients=("a@example.com\r\nBcc: x@y.z",)), "channels[1].recipients"),
    "no recipient": (with_mail(recipients=()), "channels[1].recipients"),
    "a sender that is none": (with_mail(sender="Prunella"), "channels[1].sender"),
    "port 0": (with_mail(port=0), "channels[1].port"),
    "a host that is none": (with_mail(host="smtp example"), "channels[1].host"),
    "a user without password": (with_mail(username="u"), "channels[1].password"),
    "an open password": (with_mail(username="u", secret="p", security=Security.NONE), "channels[1].security"),
    "Slack without https": (
        replace(GOOD, channels=(HOOK, MAIL, replace(CHAT, secret="http://hooks.slack.com/x"))),
        "channels[2].url",
    ),
    "an unknown channel": (with_route(steps=(EscalationStep(("hook", "pager")),)), "routes[0].steps[0].channels"),
    "no channel": (with_route(steps=(EscalationStep(()),)), "routes[0].steps[0].channels"),
    "no step": (with_route(steps=()), "routes[0].steps"),
    "an unanswerable step": (
        with_route(steps=(EscalationStep(("hook",)), EscalationStep(("mail",)))),
        "routes[0].steps[0].acknowledge_within",
    ),
    "an unknown fact": (with_route(facts=("nonsense",)), "routes[0].facts"),
    "a fact of its own": (with_route(facts=("notification_failed",)), "routes[0].facts"),
    "unknown quiet hours": (with_route(quiet_hours=("day",)), "routes[0].quiet_hours"),
    "a merchants' route without any": (with_route(audience=Audience.MERCHANTS), "routes[0].merchants"),
    "an unknown zone": (with_night(time_zone="Europe/Atlantis"), "quiet_hours[0].time_zone"),
    "a path for a zone": (with_night(time_zone="../../etc/passwd"), "quiet_hours[0].time_zone"),
    "no time of day": (with_night(start="25:00"), "quiet_hours[0].start"),
    "half a time": (with_night(end="7"), "quiet_hours[0].end"),
    "nothing between": (with_night(end="22:00"), "quiet_hours[0].end"),
    "no day": (with_night(days=("friday",)), "quiet_hours[0].days"),
    "no end of the night": (
        replace(with_night(start="00:00", end="24:00"), routes=(replace(ROUTE, quiet_hours=("night",)),)),
        "routes[0].quiet_hours",
    ),
    "a window of a day": (replace(GOOD, batch_window=timedelta(days=1)), "batch_window"),
    "a negative window": (replace(GOOD, repeat_window=timedelta(seconds=-1)), "repeat_window"),
}  # fmt: skip


def test_good_settings_pass() -> None:
    check(GOOD, NAMES)
    check(Settings(), NAMES)
    check(with_channel(url="http://127.0.0.1:8080/sink?x=1"), NAMES)
    check(with_mail(host="2001:db8::1", username="u", secret="p"), NAMES)


@pytest.mark.parametrize("case", sorted(WRONG))
def test_a_mistake_is_named_with_its_field(case: str) -> None:
    settings, field = WRONG[case]
    with pytest.raises(Invalid) as refused:
        check(settings, NAMES)
    assert refused.value.field == field
    assert refused.value.reason == "NOTIFICATION_SETTINGS"


def test_all_mistakes_are_said_at_once_and_no_secret_with_them() -> None:
    wrong = replace(
        GOOD, channels=(replace(HOOK, secret="hunter2"), MAIL), routes=(replace(ROUTE, facts=("nonsense",)),)
    )
    with pytest.raises(Invalid) as refused:
        check(wrong, NAMES)
    assert set(refused.value.metadata) == {"channels[0].secret", "routes[0].facts"}
    assert "hunter2" not in refused.value.message
    assert "hunter2" not in repr(wrong)


def test_a_secret_stays_with_the_address_it_was_typed_for() -> None:
    old = replace(MAIL, username="u", sealed="sealed")
    assert with_secret(replace(old, sealed=""), old).sealed == "sealed"
    assert with_secret(replace(old, sealed="", sender="other@example.com"), old).sealed == "sealed"
    assert with_secret(replace(old, sealed="", host="elsewhere.example.com"), old).sealed == ""
    assert with_secret(replace(old, sealed="", username="v"), old).sealed == ""
    assert (
        with_secret(replace(HOOK, secret=""), replace(HOOK, secret="", sealed="s", url="https://old.example")).url
        == HOOK.url
    )
    chat = with_secret(replace(CHAT, secret="", url=""), replace(CHAT, secret="", sealed="s"))
    assert (chat.sealed, chat.url) == ("s", "https://hooks.slack.com/…")
    assert with_secret(replace(HOOK, secret="new"), replace(HOOK, sealed="s")).sealed == ""
    assert redacted_url("https://hooks.slack.com/services/T/B/x") == "https://hooks.slack.com/…"


def test_differences_are_told_field_by_field_without_secrets() -> None:
    old = replace(GOOD, channels=(replace(HOOK, secret="", sealed="s1"), MAIL))
    new = replace(
        GOOD,
        channels=(replace(HOOK, secret="", sealed="s2", url="https://new.example/"), CHAT),
        batch_window=timedelta(seconds=30),
    )
    found = {each.field: (each.before, each.after) for each in differences(old, new)}
    assert found["batch_window"] == ('"10s"', '"30s"')
    assert found["channels[hook].url"] == (HOOK.url, "https://new.example/")
    assert found["channels[hook].secret"] == ("(hidden)", "(hidden, changed)")
    assert found["channels[mail]"][1] == ""
    assert found["channels[chat]"][0] == ""
    assert "services/T" not in str(found)
    assert not differences(GOOD, GOOD)
    swapped = replace(GOOD, channels=(MAIL, HOOK, CHAT))
    assert [each.field for each in differences(GOOD, swapped)] == ["channels (order)"]
