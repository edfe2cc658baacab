"""The policy and kill switches, as callers see and change them."""

from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

from libs.common.errors import Invalid
from prunella.v1 import patcher_pb2
from services.patcher.freeze import FreezeWindow
from services.patcher.policy import EDITABLE, Policy, Severity, check
from services.patcher.store.kill_switches import KillSwitch
from services.patcher.wire.values import severity, timestamp

DURATIONS = frozenset(field.name for field in fields(Policy) if isinstance(field.default, timedelta))
LISTS = frozenset({"autopatch_merchants", "canary_merchants", "multisig_roles", "multisig_approvers"})


def policy(found: Policy) -> patcher_pb2.Policy:
    """The policy as callers see it; its etag is its version."""
    told = patcher_pb2.Policy(
        version=found.version,
        etag=str(found.version),
        update_time=timestamp(found.update_time),
        updated_by=found.updated_by,
        reason=found.reason,
    )
    for name in EDITABLE:
        value = getattr(found, name)
        if name in DURATIONS:
            getattr(told, name).FromTimedelta(value)
        elif name in LISTS:
            getattr(told, name).extend(value)
        elif name == "freeze_windows":
            told.freeze_windows.extend(_window(each) for each in value)
        else:
            setattr(told, name, int(value) if isinstance(value, Severity) else value)
    return told


def _window(found: FreezeWindow) -> patcher_pb2.FreezeWindow:
    made = patcher_pb2.FreezeWindow(cron=found.cron, time_zone=found.time_zone, reason=found.reason)
    made.duration.FromTimedelta(found.duration)
    return made


def changed_policy(request: patcher_pb2.UpdatePolicyRequest, found: Policy) -> tuple[Policy, list[str]]:
    """The policy with the fields of the mask replaced, and which of them differ. Raises Invalid, naming the field."""
    paths = list(dict.fromkeys(request.update_mask.paths))
    unknown = [path for path in paths if path not in EDITABLE]
    if unknown or not paths:
        wrong = f"{unknown[0]!r} is not a policy field" if unknown else "update_mask names no field"
        raise Invalid(f"{wrong}; the fields are {', '.join(EDITABLE)}", reason="POLICY_FIELD", field="update_mask")
    values = {path: _policy_value(request.policy, path) for path in paths}
    made = replace(found, **values)
    check(made)
    return made, [path for path in paths if getattr(found, path) != values[path]]


def _policy_value(told: patcher_pb2.Policy, name: str) -> Any:
    value = getattr(told, name)
    if name in DURATIONS:
        return value.ToTimedelta()
    if name in LISTS:
        return tuple(value)
    if name == "freeze_windows":
        return tuple(FreezeWindow(w.cron, w.time_zone, w.duration.ToTimedelta(), w.reason) for w in value)
    return severity(value) if name == "autopatch_max_severity" else value


def kill_switch(found: KillSwitch) -> patcher_pb2.KillSwitch:
    """A kill switch as callers see it."""
    return patcher_pb2.KillSwitch(
        scope=found.scope,
        engaged=found.engaged,
        epoch=found.epoch,
        actor=found.actor,
        reason=found.reason,
        update_time=timestamp(found.update_time),
    )
