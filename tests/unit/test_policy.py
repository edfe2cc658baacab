"""The gates: what passes, what waits, what is refused and why."""

from dataclasses import fields, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid
from services.patcher.policy import (
    EDITABLE,
    KILL_SWITCH,
    POLICY_GATES,
    Action,
    Allow,
    GateRequest,
    Hold,
    Policy,
    Refuse,
    Severity,
    check,
    gate,
    scopes,
)

REQUEST = GateRequest("p1", "m1", Action.PATCH, Severity.MEDIUM, 0.87, True)


def refused_by(policy: Policy, gate_request: GateRequest) -> str:
    answer = gate(policy, (), gate_request)
    assert isinstance(answer, Refuse)
    assert answer.reason
    return answer.gate


def test_the_worked_example_passes_the_default_policy() -> None:
    assert gate(Policy(), (), REQUEST) == Allow()


def test_the_defaults_are_those_of_the_first_document() -> None:
    policy = Policy()
    assert (policy.autopatch_enabled, policy.autopatch_merchants, policy.autopatch_max_severity) == (True, (), 2)
    assert (policy.min_confidence, policy.require_staging, policy.staging_timeout) == (
        0.75,
        True,
        timedelta(seconds=300),
    )
    assert (policy.health_check_timeout, policy.health_check_interval) == (timedelta(seconds=90), timedelta(seconds=3))
    assert (policy.require_multisig_for_major, policy.require_multisig_for_high_impact) == (True, True)
    assert (policy.multisig_quorum, policy.rollback_error_rate_threshold) == (2, 10.0)
    assert (policy.rollback_heartbeat_missed, policy.learning_enabled) == (timedelta(seconds=120), True)
    assert (policy.canary_percentage, policy.canary_merchants) == (0, ())


@pytest.mark.parametrize("scope", ["global", "merchants/m1", "plugins/p1", "actions/patch"])
def test_a_kill_switch_in_any_scope_holds_instead_of_refusing(scope: str) -> None:
    answer = gate(Policy(), {scope}, REQUEST)
    assert isinstance(answer, Hold)
    assert answer.gate == KILL_SWITCH


@pytest.mark.parametrize("scope", ["merchants/m2", "plugins/p2", "actions/rollback", "merchants/", "p1"])
def test_a_kill_switch_elsewhere_changes_nothing(scope: str) -> None:
    assert gate(Policy(), {scope}, REQUEST) == Allow()


def test_the_kill_switch_is_asked_before_everything_that_refuses() -> None:
    assert isinstance(gate(Policy(autopatch_enabled=False), {"global"}, REQUEST), Hold)


@pytest.mark.parametrize(
    ("policy", "gate_request", "name"),
    [
        (Policy(autopatch_enabled=False), REQUEST, "AUTOPATCH_DISABLED"),
        (Policy(autopatch_merchants=("m2",)), REQUEST, "ALLOW_LIST"),
        (Policy(), replace(REQUEST, severity=Severity.HIGH), "SEVERITY"),
        (Policy(), replace(REQUEST, severity=Severity.UNKNOWN), "SEVERITY"),
        (Policy(), replace(REQUEST, confidence=0.74), "CONFIDENCE"),
        (Policy(), replace(REQUEST, confidence=float("nan")), "CONFIDENCE"),
        (Policy(), replace(REQUEST, staged=False), "STAGING"),
    ],
)
def test_each_gate_refuses_with_its_own_name(policy: Policy, gate_request: GateRequest, name: str) -> None:
    assert refused_by(policy, gate_request) == name
    assert name in POLICY_GATES


def test_an_empty_allow_list_means_everybody_and_a_listed_merchant_passes() -> None:
    assert gate(Policy(autopatch_merchants=("m1",)), (), REQUEST) == Allow()


@pytest.mark.parametrize("action", [Action.RESTART, Action.ROLLBACK])
def test_the_severity_cap_is_about_what_is_new(action: Action) -> None:
    assert gate(Policy(), (), replace(REQUEST, action=action, severity=Severity.HIGH)) == Allow()


def test_staging_is_no_gate_where_policy_does_not_ask_for_it_or_before_it_is_due() -> None:
    assert gate(Policy(require_staging=False), (), replace(REQUEST, staged=False)) == Allow()
    assert gate(Policy(), (), replace(REQUEST, staged=None)) == Allow()
    assert gate(Policy(), (), replace(REQUEST, action=Action.RESTART, staged=False)) == Allow()


@given(
    st.sampled_from(Action),
    st.sampled_from(Severity),
    st.floats(0, 1),
    st.sampled_from([True, False, None]),
    st.sets(st.sampled_from(["global", "merchants/m1", "plugins/p1", "actions/patch", "actions/restart"])),
)
def test_nothing_passes_an_engaged_switch_and_nothing_else_holds(
    action: Action, severity: Severity, confidence: float, staged: bool | None, engaged: set[str]
) -> None:
    gate_request = GateRequest("p1", "m1", action, severity, confidence, staged)
    covered = bool(set(scopes("p1", "m1", action)) & engaged)
    assert isinstance(gate(Policy(), engaged, gate_request), Hold) == covered


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_confidence", 1.5),
        ("min_confidence", float("nan")),
        ("autopatch_max_severity", Severity.UNKNOWN),
        ("staging_timeout", timedelta(0)),
        ("multisig_quorum", 0),
        ("canary_percentage", 101),
        ("rollback_error_rate_threshold", -1.0),
        ("autopatch_merchants", ("a", "a")),
        ("canary_merchants", ("",)),
        ("health_check_interval", timedelta(hours=2)),
        ("rollback_heartbeat_missed", timedelta(0)),
        ("health_check_timeout", timedelta(0)),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_field_and_rule(field: str, value: object) -> None:
    with pytest.raises(Invalid) as refused:
        check(replace(Policy(), **{field: value}))  # type: ignore[arg-type]
    assert refused.value.field == f"policy.{field}"


def test_every_field_but_the_bookkeeping_can_be_edited() -> None:
    assert {field.name for field in fields(Policy)} - set(EDITABLE) == {
        "version",
        "update_time",
        "updated_by",
        "reason",
    }
    check(Policy())
