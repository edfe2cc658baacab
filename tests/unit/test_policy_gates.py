"""Every field of the policy has effect: changed alone, it turns a situation; and what no value can bring about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid
from services.patcher.freeze import FreezeWindow
from services.patcher.policy import (
    BOUNDS,
    EDITABLE,
    Action,
    Allow,
    Ask,
    GateInputs,
    GateRequest,
    Hold,
    Isolation,
    Policy,
    Probation,
    Refuse,
    Reply,
    RollBack,
    Severity,
    Step,
    ask,
    check,
    compare,
    diff,
    gate,
    gates,
    in_flight_limit,
    is_canary,
    objections,
    preview,
    step,
)

NOW = datetime(2026, 3, 6, 20, tzinfo=UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
REQUEST = GateRequest("p1", "m1", Action.PATCH, Severity.MEDIUM, 0.87, True)
PATCH = GateInputs(REQUEST, NOW, from_release="1.2.0", to_release="1.2.3", fleet=100)
MAJOR = replace(PATCH, to_release="2.0.0")


def watched(silent: float = 0, error_rate: float = 0) -> GateInputs:
    return replace(PATCH, probation=Probation(20, silent=silent, error_rate=error_rate, healthy=True))


WEEKEND = FreezeWindow("0 18 * * 5", "Europe/Berlin", 62 * HOUR, "the weekend")
RELEASED = [PATCH.now - n * HOUR for n in range(1, 7)]

# Which gates each field moves; a field without one would be data without effect.
EFFECTS: dict[str, tuple[gates.Gate, ...]] = {
    "autopatch_enabled": (gates.basic,),
    "autopatch_merchants": (gates.basic,),
    "autopatch_max_severity": (gates.basic,),
    "min_confidence": (gates.basic,),
    "require_staging": (gates.basic,),
    "min_isolation": (gates.isolation,),
    "staging_timeout": (gates.staging_time,),
    "health_check_timeout": (gates.health_time,),
    "health_check_interval": (gates.health_interval,),
    "require_multisig_for_major": (gates.major,),
    "require_multisig_for_high_impact": (gates.high_impact,),
    "multisig_quorum": (gates.major, gates.high_impact),
    "multisig_roles": (gates.major, gates.high_impact),
    "multisig_approvers": (gates.major, gates.high_impact),
    "approval_timeout": (gates.major, gates.high_impact),
    "high_impact_plugins": (gates.high_impact,),
    "rollback_error_rate_threshold": (gates.error_rate,),
    "rollback_heartbeat_missed": (gates.silence,),
    "learning_enabled": (gates.learning,),
    "canary_percentage": (gates.canary,),
    "canary_merchants": (gates.canary,),
    "freeze_windows": (gates.freeze,),
    "max_in_flight": (gates.budget,),
    "max_in_flight_percentage": (gates.budget,),
    "max_attempts": (gates.attempts,),
    "attempts_window": (gates.attempts,),
}

# field, the value that turns it, the situation, the answer before and after.
Case = tuple[str, object, GateInputs, type[Reply], type[Reply]]
CASES: list[Case] = [
    ("autopatch_enabled", False, PATCH, Allow, Refuse),
    ("autopatch_merchants", ("m2",), PATCH, Allow, Refuse),
    ("autopatch_max_severity", Severity.LOW, PATCH, Allow, Refuse),
    ("min_confidence", 0.9, PATCH, Allow, Refuse),
    ("require_staging", False, replace(PATCH, request=replace(REQUEST, staged=False)), Refuse, Allow),
    ("min_isolation", Isolation.USER, replace(PATCH, isolation=Isolation.USER), Refuse, Allow),
    ("staging_timeout", 10 * SECOND, replace(PATCH, staging=60.0), Allow, Refuse),
    ("health_check_timeout", 10 * SECOND, replace(PATCH, probation=Probation(since=20)), Allow, RollBack),
    ("health_check_interval", 9 * SECOND, replace(PATCH, probation=Probation(20, last_look=5, healthy=True)),
     Allow, Hold),
    ("require_multisig_for_major", False, MAJOR, Ask, Allow),
    ("require_multisig_for_high_impact", False, replace(PATCH, plugins=51), Ask, Allow),
    ("multisig_quorum", 3, MAJOR, Ask, Ask),
    ("multisig_roles", ("approver", "admin"), MAJOR, Ask, Ask),
    ("multisig_approvers", ("bea", "cem"), MAJOR, Ask, Ask),
    ("approval_timeout", 2 * HOUR, MAJOR, Ask, Ask),
    ("high_impact_plugins", 10, replace(PATCH, plugins=11), Allow, Ask),
    ("rollback_error_rate_threshold", 5.0, watched(error_rate=7.5), Allow, RollBack),
    ("rollback_heartbeat_missed", 10 * SECOND, watched(silent=15), Allow, RollBack),
    ("learning_enabled", False, PATCH, Allow, Allow),
    ("canary_percentage", 1, PATCH, Allow, Hold),
    ("canary_merchants", ("m2",), PATCH, Allow, Hold),
    ("freeze_windows", (WEEKEND,), PATCH, Allow, Hold),
    ("max_in_flight", 3, replace(PATCH, in_flight=3), Allow, Hold),
    ("max_in_flight_percentage", 3.0, replace(PATCH, in_flight=3), Allow, Hold),
    ("max_attempts", 2, replace(PATCH, recent_permits=tuple(RELEASED[:2])), Allow, Refuse),
    ("attempts_window", 10 * HOUR, replace(PATCH, recent_permits=(*RELEASED[:3], *(NOW - 12 * HOUR,) * 3)),
     Refuse, Allow),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "inputs", "before", "after"), CASES, ids=[case[0] for case in CASES])
def test_each_field_alone_turns_a_situation_at_its_own_gate(
    field: str, value: object, inputs: GateInputs, before: type[Reply], after: type[Reply]
) -> None:
    old, new = Policy(), replace(Policy(), **{field: value})  # type: ignore[arg-type]
    check(new)
    was, now = preview(old, inputs), preview(new, inputs)
    assert was != now
    assert (type(was.reply), type(now.reply)) == (before, after)
    assert any(gate(old, inputs) != gate(new, inputs) for gate in EFFECTS[field])
    others = {each for moved in EFFECTS.values() for each in moved} - set(EFFECTS[field])
    assert all(gate(old, inputs) == gate(new, inputs) for gate in others)
    assert len(now.explanation) > 10


def test_no_field_is_data_without_effect() -> None:
    assert {case[0] for case in CASES} == set(EFFECTS)
    assert set(EFFECTS) == set(EDITABLE)


def test_the_worked_example_passes_every_gate() -> None:
    assert ask(Policy(), PATCH) == Allow()
    assert objections(Policy(), PATCH) == ()
    assert preview(Policy(), PATCH).explanation == "it would go on"


def test_people_who_have_approved_exactly_this_plan_open_its_gate() -> None:
    assert isinstance(ask(Policy(), MAJOR), Ask)
    assert ask(Policy(), replace(MAJOR, approved=True)) == Allow()


def test_high_severity_within_a_raised_cap_still_needs_people() -> None:
    raised = Policy(autopatch_max_severity=Severity.CRITICAL)
    reply = ask(raised, replace(PATCH, request=replace(REQUEST, severity=Severity.HIGH)))
    assert isinstance(reply, Ask)
    assert reply.reason == "its severity is high: 2 different people (at least 1 approver) must approve"


@pytest.mark.parametrize("action", [Action.RESTART, Action.ROLLBACK])
def test_what_returns_to_what_ran_before_is_not_frozen_nor_asked_for_nor_held_for_canaries(action: Action) -> None:
    policy = Policy(freeze_windows=(WEEKEND,), canary_percentage=1)
    back = replace(MAJOR, request=replace(REQUEST, action=action, severity=Severity.HIGH), to_release="0.9.0")
    assert ask(policy, back) == Allow()


def test_a_storm_holds_whatever_is_automatic() -> None:
    for action in (Action.PATCH, Action.ROLLBACK, Action.RESTART):
        reply = ask(
            Policy(), replace(PATCH, request=replace(REQUEST, action=action), storm="12 of 40 checkout plugins fail")
        )
        assert isinstance(reply, Hold)
        assert reply.reason == "automation pauses: 12 of 40 checkout plugins fail"


def test_every_objection_is_told_not_only_the_first() -> None:
    policy = Policy(freeze_windows=(WEEKEND,), max_in_flight=1)
    found = objections(policy, replace(MAJOR, in_flight=1, storm="a storm", request=replace(REQUEST, confidence=0.1)))
    assert [getattr(each, "gate", "") for each in found] == ["STORM", "CONFIDENCE", "FREEZE", "APPROVAL", "BUDGET"]


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("1.2.0", "1.2.3", Step.FORWARD), ("1.2.0", "1.9.0", Step.FORWARD), ("1.2.0", "2.0.0", Step.MAJOR),
        ("2.0.0", "1.9.9", Step.MAJOR), ("0.3.1", "0.3.2", Step.FORWARD), ("0.3.1", "0.4.0", Step.MAJOR),
        ("v1.0", "1.5.0-rc.1", Step.PRE_RELEASE), ("1", "1.1", Step.FORWARD), ("1.2.3", "1.2.0", Step.DOWNGRADE),
        ("1.2.3", "1.2.3-rc.1", Step.DOWNGRADE), ("1.2.3-rc.1", "1.2.3", Step.FORWARD),
        ("1.2.3-rc.1", "1.2.3-rc.2", Step.PRE_RELEASE), ("1.2.3", "1.2.3", Step.FORWARD),
        ("1.2.3+a", "1.2.3+b", Step.UNCLEAR), ("1.2.0", "main", Step.UNCLEAR), ("", "1.0.0", Step.UNCLEAR),
        ("1.٢.0", "1.2.0", Step.UNCLEAR),
    ],
)  # fmt: skip
def test_what_kind_of_change_leads_from_one_version_to_another(before: str, after: str, kind: Step) -> None:
    assert step(before, after) is kind


@pytest.mark.parametrize(
    ("after", "named", "asked"),
    [
        ("1.2.3", False, False), ("1.1.0", False, True), ("1.1.0", True, False), ("1.3.0-rc.1", False, True),
        ("1.3.0-rc.1", True, False), ("2.0.0", True, True), ("main", True, True),
    ],
)  # fmt: skip
def test_a_way_back_or_a_pre_release_asks_people_unless_the_playbook_names_it(
    after: str, named: bool, asked: bool
) -> None:
    reply = ask(Policy(), replace(PATCH, to_release=after, named=named))
    assert isinstance(reply, Ask) is asked
    if asked:
        assert f"1.2.0 → {after} is " in getattr(reply, "reason", "")


@pytest.mark.parametrize("gives", [Isolation.NONE, Isolation.USER, Isolation.NAMESPACES])
@pytest.mark.parametrize("least", [Isolation.NONE, Isolation.USER, Isolation.NAMESPACES])
def test_what_ran_with_too_little_around_it_has_proven_nothing(gives: Isolation, least: Isolation) -> None:
    reply = ask(Policy(min_isolation=least), replace(PATCH, isolation=gives))
    assert isinstance(reply, Refuse) is (gives < least)
    if gives < least:
        assert reply == Refuse("ISOLATION", f"the sandbox had isolation {gives.word}, the policy asks for {least.word}")
    without = replace(Policy(min_isolation=least), require_staging=False)
    assert ask(without, replace(PATCH, isolation=gives)) == Allow()


def test_levels_of_isolation_have_words() -> None:
    assert [Isolation.of(level.word) for level in Isolation] == list(Isolation)
    for word in ("", "full", "3"):
        with pytest.raises(ValueError, match="no isolation"):
            Isolation.of(word)


@pytest.mark.parametrize(("fleet", "limit"), [(0, 1), (1, 1), (3, 1), (10, 2), (79, 16), (288, 16), (10**6, 16)])
def test_the_budget_is_the_smaller_bound_and_at_least_one(fleet: int, limit: int) -> None:
    assert in_flight_limit(Policy(), fleet) == limit


@given(st.integers(1, 10_000), st.floats(0.01, 100), st.integers(0, 10**6), st.integers(0, 10**6))
def test_in_flight_never_goes_beyond_the_budget(absolute: int, percent: float, fleet: int, flying: int) -> None:
    policy = Policy(max_in_flight=absolute, max_in_flight_percentage=percent)
    limit = in_flight_limit(policy, fleet)
    assert 1 <= limit <= absolute
    assert isinstance(ask(policy, replace(PATCH, fleet=fleet, in_flight=flying)), Hold) == (flying >= limit)


def test_canaries_are_drawn_the_same_way_each_time_and_by_the_percentage() -> None:
    policy = Policy(canary_percentage=20)
    drawn = [is_canary(policy, f"p{n}", "m1", "1.2.3") for n in range(5000)]
    assert drawn == [is_canary(policy, f"p{n}", "m1", "1.2.3") for n in range(5000)]
    assert 900 < sum(drawn) < 1100
    assert drawn != [is_canary(policy, f"p{n}", "m1", "1.2.4") for n in range(5000)]
    assert all(is_canary(Policy(canary_percentage=100), f"p{n}", "m1", "1") for n in range(500))
    assert is_canary(Policy(canary_merchants=("m1",)), "p1", "m1", "1")


def test_once_a_canary_was_healed_everybody_may_have_the_release() -> None:
    policy = Policy(canary_merchants=("m2",))
    assert isinstance(ask(policy, PATCH), Hold)
    assert ask(policy, replace(PATCH, proven=True)) == Allow()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"multisig_quorum": 3, "multisig_approvers": ("bea", "cem")}, "multisig_quorum"),
        ({"multisig_quorum": 1, "multisig_roles": ("approver", "admin")}, "multisig_roles"),
        ({"multisig_quorum": 21}, "multisig_quorum"),
        ({"multisig_roles": ("king",)}, "multisig_roles"),
        ({"multisig_roles": ()}, "multisig_roles"),
        ({"multisig_approvers": ("bea", "BEA")}, "multisig_approvers"),
        ({"approval_timeout": SECOND}, "approval_timeout"),
        ({"high_impact_plugins": 0}, "high_impact_plugins"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_in_flight_percentage": 0.0}, "max_in_flight_percentage"),
        ({"max_in_flight_percentage": float("nan")}, "max_in_flight_percentage"),
        ({"max_in_flight_percentage": 101.0}, "max_in_flight_percentage"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"attempts_window": SECOND}, "attempts_window"),
        ({"canary_percentage": 101}, "canary_percentage"),
        ({"health_check_interval": 20 * SECOND, "health_check_timeout": 10 * SECOND}, "health_check_interval"),
        ({"freeze_windows": (replace(WEEKEND, time_zone="Mars/Olympus"),)}, "freeze_windows[0].time_zone"),
        ({"freeze_windows": (WEEKEND, replace(WEEKEND, cron="x"))}, "freeze_windows[1].cron"),
    ],
)
def test_bad_values_are_refused_with_field_rule_and_remedy(change: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check(replace(Policy(), **change))  # type: ignore[arg-type]
    assert (refused.value.reason, refused.value.field) == ("POLICY_FIELD", f"policy.{field}")
    assert refused.value.metadata["rule"] in refused.value.message
    assert refused.value.metadata["remedy"] in refused.value.message


def test_bounds_are_about_fields_that_exist() -> None:
    assert set(BOUNDS) <= set(EDITABLE)


def test_a_difference_is_told_field_by_field_without_the_bookkeeping() -> None:
    new = Policy(version=2, reason="winter", min_confidence=0.9, freeze_windows=(WEEKEND,), staging_timeout=HOUR)
    assert [(each.field, each.before, each.after) for each in diff(Policy(), new)] == [
        ("min_confidence", "0.75", "0.9"),
        ("staging_timeout", "300.0", "3600.0"),
        (
            "freeze_windows",
            "[]",
            '[{"cron": "0 18 * * 5", "duration": 223200.0, "reason": "the weekend", "time_zone": "Europe/Berlin"}]',
        ),
    ]
    assert diff(new, new) == ()


def test_a_dry_run_tells_only_what_would_turn_out_differently() -> None:
    strict = Policy(min_confidence=0.9)
    turns = compare(Policy(), strict, [PATCH, replace(PATCH, request=replace(REQUEST, confidence=0.95)), MAJOR])
    assert [(turn.index, turn.before.outcome, turn.after.outcome) for turn in turns] == [
        (0, "allow", "refuse"),
        (2, "ask", "refuse"),
    ]
    assert turns[0].after.explanation == "refuse at CONFIDENCE: confidence 0.87 is below 0.90"


def test_the_gates_of_the_wish_alone_are_the_same_in_both_doors() -> None:
    for engaged in (frozenset[str](), frozenset({"global"})):
        for confidence in (0.1, 0.9):
            request = replace(REQUEST, confidence=confidence)
            assert ask(Policy(), replace(PATCH, request=request, engaged=engaged)) == gate(Policy(), engaged, request)
