"""The policy and kill switches, as callers see and change them."""

import enum
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

from libs.common.errors import Invalid
from libs.common.timestamps import length
from prunella.v1 import events_pb2, patcher_pb2
from services.patcher.attempt import Attempt
from services.patcher.freeze import FreezeWindow
from services.patcher.policy import EDITABLE, Allow, Difference, Isolation, Policy, Preview, Replay, check, diff
from services.patcher.staging import SandboxHost
from services.patcher.store.kill_switches import KillSwitch
from services.patcher.store.policy import PolicyVersion
from services.patcher.wire.scalars import severity, timestamp

DURATIONS = frozenset(field.name for field in fields(Policy) if isinstance(field.default, timedelta))
LISTS = frozenset({"autopatch_merchants", "canary_merchants", "multisig_roles", "multisig_approvers"})


def policy(found: Policy) -> patcher_pb2.Policy:
    """The policy as callers see it; its etag is its version."""
    shown = patcher_pb2.Policy(
        version=found.version,
        etag=str(found.version),
        update_time=timestamp(found.update_time),
        updated_by=found.updated_by,
        reason=found.reason,
    )
    for name in EDITABLE:
        value = getattr(found, name)
        if name in DURATIONS:
            getattr(shown, name).FromTimedelta(value)
        elif name in LISTS:
            getattr(shown, name).extend(value)
        elif name == "freeze_windows":
            shown.freeze_windows.extend(_window(each) for each in value)
        else:
            setattr(shown, name, int(value) if isinstance(value, enum.IntEnum) else value)
    return shown


def _window(found: FreezeWindow) -> patcher_pb2.FreezeWindow:
    made = patcher_pb2.FreezeWindow(cron=found.cron, time_zone=found.time_zone, reason=found.reason)
    made.duration.FromTimedelta(found.duration)
    return made


def changed_policy(
    request: patcher_pb2.UpdatePolicyRequest | patcher_pb2.PreviewPolicyRequest, found: Policy
) -> tuple[Policy, tuple[Difference, ...]]:
    """The policy with the fields of the mask replaced, and what differs. Raises Invalid, naming the field."""
    paths = list(dict.fromkeys(request.update_mask.paths))
    unknown = [path for path in paths if path not in EDITABLE]
    if unknown or not paths:
        wrong = f"{unknown[0]!r} is not a policy field" if unknown else "update_mask names no field"
        raise Invalid(f"{wrong}; the fields are {', '.join(EDITABLE)}", reason="POLICY_FIELD", field="update_mask")
    values = {path: _policy_value(request.policy, path) for path in paths}
    made = replace(found, **values)
    check(made)
    return made, diff(found, made)


def policy_changed(made: Policy, differences: tuple[Difference, ...]) -> events_pb2.PolicyChanged:
    """What the fact of a change tells."""
    shown = events_pb2.PolicyChanged(version=made.version, fields=[each.field for each in differences])
    for each in differences:
        shown.changes.add(field=each.field, before=each.before, after=each.after)
    return shown


def policy_change(found: PolicyVersion) -> patcher_pb2.PolicyChange:
    """One version of the policy as callers see it."""
    shown = patcher_pb2.PolicyChange(
        version=found.version, actor=found.actor, reason=found.reason, time=timestamp(found.create_time)
    )
    for each in found.fields:
        shown.fields.add(field=each.field, before=each.before, after=each.after)
    return shown


def policy_replay(replay: Replay, attempt: Attempt) -> patcher_pb2.PolicyReplay:
    """One decision that would turn out differently, as callers see it."""
    return patcher_pb2.PolicyReplay(
        attempt=attempt.id,
        decision=attempt.decision,
        incident=attempt.incident,
        plugin=attempt.plugin,
        current=replay.before.outcome,
        current_gate=_gate(replay.before),
        proposed=replay.after.outcome,
        proposed_gate=_gate(replay.after),
        explanation=replay.after.explanation,
    )


def _gate(preview: Preview) -> str:
    return "" if isinstance(preview.reply, Allow) else preview.reply.gate


def _policy_value(shown: patcher_pb2.Policy, name: str) -> Any:
    value = getattr(shown, name)
    if name in DURATIONS:
        return length(value, name)
    if name in LISTS:
        return tuple(value)
    if name == "freeze_windows":
        return tuple(FreezeWindow(w.cron, w.time_zone, length(w.duration, name), w.reason) for w in value)
    if name == "min_isolation":
        return Isolation(value) if value in set(Isolation) else Isolation.UNKNOWN
    return severity(value) if name == "autopatch_max_severity" else value


def sandbox(found: SandboxHost) -> patcher_pb2.Sandbox:
    """What the sandbox can give, as callers see it."""
    return patcher_pb2.Sandbox(
        isolation=int(found.isolation),  # type: ignore[arg-type]
        where=found.where,
        user=found.user,
        network=found.network,
        files=found.files,
        missing=found.missing,
        remedy=found.remedy if found.missing else "",
    )


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
