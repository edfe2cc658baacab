"""Rollouts as callers write and see them, and the facts they tell."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from libs.common import names
from libs.common.errors import Invalid
from prunella.v1 import ingest_pb2, patcher_pb2
from services.patcher.approvals import Approval
from services.patcher.rollout import DEFAULT_WAVES, Bounds, Candidate, MemberState, Rollout, Rules, Wave, figures
from services.patcher.store.members import MemberRow
from services.patcher.store.rollouts import HistoryEntry, StoredRollout
from services.patcher.wire.approvals import approval as show_approval
from services.patcher.wire.scalars import timestamp

NUMBER = re.compile(r"[1-9][0-9]{0,6}")
SHARE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s?%")
LONGEST = timedelta(days=90)
MOST_NAMED = 1000


@dataclass(frozen=True)
class Settings:
    """The settings of a rollout; a budget of 0 leaves it to the policy."""

    waves: tuple[Wave, ...]
    budget: int
    rules: Rules
    bounds: Bounds
    canaries: tuple[str, ...]
    canary_merchants: tuple[str, ...]


def read_settings(message: patcher_pb2.RolloutSettings) -> Settings:
    """The settings, with defaults for what is absent. Raises Invalid, naming the field."""
    if message.budget < 0:
        raise _invalid("settings.budget", f"must be at least 1 plugin, it was {message.budget}; leave it out for 16")
    for name in ("canaries", "canary_merchants"):
        if len(getattr(message, name)) > MOST_NAMED:
            raise _invalid(f"settings.{name}", f"must name at most {MOST_NAMED:,}")
    overrides = {name: getattr(message, name) for name in ("alpha", "floor") if getattr(message, name) != 0}
    rules, usual = replace(Rules(), **overrides), Bounds()
    bounds = replace(
        usual,
        exposure=message.exposure or usual.exposure,
        soak=_length(message.soak, "soak") if message.HasField("soak") else usual.soak,
        start_within=_length(message.start_within, "start_within")
        if message.HasField("start_within")
        else usual.start_within,
        stall=_length(message.stall, "stall") if message.HasField("stall") else usual.stall,
    )
    return Settings(
        waves=tuple(_wave(text, number) for number, text in enumerate(message.waves)) or DEFAULT_WAVES,
        budget=message.budget,
        rules=rules,
        bounds=bounds,
        canaries=tuple(message.canaries),
        canary_merchants=tuple(message.canary_merchants),
    )


def _wave(text: str, number: int) -> Wave:
    text = text.strip()
    if NUMBER.fullmatch(text):
        return Wave(plugins=int(text))
    if (share := SHARE.fullmatch(text)) and float(share[1]):
        return Wave(percent=float(share[1]))
    raise _invalid(
        f"settings.waves[{number}]", f"must be a number of plugins such as 5, or a share such as 20%, not {text[:40]!r}"
    )


def _length(message: Duration, name: str) -> timedelta:
    if not -LONGEST.total_seconds() <= message.seconds <= LONGEST.total_seconds():
        raise _invalid(f"settings.{name}", "must be at most 90 days")
    return message.ToTimedelta()


def _invalid(field: str, rule: str) -> Invalid:
    return Invalid(f"{field} {rule}", reason="ROLLOUT_FIELD", field=field, rule=rule)


def candidate(plugin: ingest_pb2.Plugin) -> Candidate:
    """A plugin as it is drawn."""
    switch_number = plugin.environment
    return Candidate(
        names.id_of(plugin.name),
        plugin.merchant,
        plugin.release,
        switch_number.get("cms", ""),
        switch_number.get("region", ""),
        plugin.connected,
    )


def rollout_of(
    stored: StoredRollout, history: Sequence[HistoryEntry] = (), approval: tuple[Approval, str] | None = None
) -> patcher_pb2.Rollout:
    """A rollout as callers see it; `approval` comes with its plan's text."""
    found = stored.rollout
    return patcher_pb2.Rollout(
        name=names.rollout(found.id),
        package=found.package,
        target=found.target,
        config=stored.config,
        state=found.state.value,
        wave=found.wave,
        waves=[
            patcher_pb2.RolloutWave(
                number=number,
                plugins=tally.of(*MemberState),
                states={state.value: count for state, count in tally.counts.items()},
            )
            for number, tally in enumerate(found.tallies, 1)
        ],
        budget=found.budget,
        concurrency=min(found.concurrency.width, found.budget),
        author=stored.author,
        reason=found.reason,
        figures=_figures(found),
        create_time=timestamp(found.create_time),
        update_time=timestamp(found.update_time),
        deadline_time=timestamp(found.deadline_time),
        end_time=timestamp(found.end_time),
        settings=_settings(stored),
        history=[_transition(entry) for entry in history],
        approval=show_approval(*approval) if approval else None,
    )


def _figures(rollout: Rollout) -> patcher_pb2.RolloutFigures:
    shown = figures(rollout)
    message = patcher_pb2.RolloutFigures(**vars(shown))
    if not (shown.healthy or shown.counted_against or shown.rolled_back):
        message.ClearField("success_rate")
        message.ClearField("rollback_rate")
    return message


def _settings(stored: StoredRollout) -> patcher_pb2.RolloutSettings:
    """What is in force: the author's settings with the defaults filled in."""
    message = patcher_pb2.RolloutSettings.FromString(stored.settings)
    found = stored.rollout
    if not message.waves:
        message.waves.extend(f"{wave.plugins}" if wave.plugins else f"{wave.percent:g}%" for wave in DEFAULT_WAVES)
    message.budget, message.exposure = found.budget, found.bounds.exposure
    message.alpha, message.floor = found.rules.alpha, found.rules.floor
    for name in ("soak", "start_within", "stall"):
        getattr(message, name).FromTimedelta(getattr(found.bounds, name))
    return message


def _transition(entry: HistoryEntry) -> patcher_pb2.RolloutTransition:
    return patcher_pb2.RolloutTransition(
        time=timestamp(entry.create_time),
        from_state=entry.transition.from_state.value,
        to_state=entry.transition.to_state.value,
        wave=entry.transition.wave,
        observation=entry.transition.observation,
        reason=entry.transition.reason,
        actor=entry.actor,
    )


def member_of(row: MemberRow) -> patcher_pb2.RolloutMember:
    """A plugin of a rollout as callers see it."""
    return patcher_pb2.RolloutMember(
        plugin=row.member.plugin,
        label=row.label,
        wave=row.member.wave,
        state=row.member.state.value,
        attempt=row.attempt,
        reason=row.member.reason,
    )
