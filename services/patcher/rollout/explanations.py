"""Sentences: why a rollout stopped or went on, in one sentence with the numbers it rests on."""

from services.patcher.rollout.judging import Judgement
from services.patcher.rollout.members import COUNTED_AGAINST, MemberState
from services.patcher.rollout.model import Rollout
from services.patcher.sequential import Counts


def halted(rollout: Rollout, judgement: Judgement) -> str:
    """Why the build is to blame."""
    return (
        f"wave {rollout.wave} is halted: {_broke(judgement.wave)}, {_control(judgement.control)}; at most "
        f"{_percent(judgement.null)} was allowed, and chance alone does this in less than 1 of "
        f"{int(judgement.evidence):,} rollouts"
    )


def passed(rollout: Rollout, judgement: Judgement) -> str:
    """Why the wave passed."""
    sentence = f"wave {rollout.wave} passed: {_broke(judgement.wave)}, {_control(judgement.control)}"
    return sentence + _left_out(rollout)


def insufficient(rollout: Rollout, judgement: Judgement) -> str:
    """Why the wave neither passed nor failed."""
    wave = judgement.wave
    if judgement.common_cause:
        return f"wave {rollout.wave} meets trouble all around: {_broke(wave)}, {_control(judgement.control)}"
    if judgement.doubtful:
        why = f"more than {_percent(rollout.rules.floor)}, but not enough to blame the build"
        return f"wave {rollout.wave} is in doubt: {_broke(wave)}, {_control(judgement.control)}: {why}"
    watched = rollout.tallies[rollout.wave - 1].of(MemberState.WATCHED)
    shown = f"{wave.exposed - watched} of {judgement.needed - watched} plugins needed"
    unproven = f", {watched} have had no traffic since they committed" if watched else ""
    return f"wave {rollout.wave} shows too little: {shown}{unproven}" + _left_out(rollout)


def stalled(rollout: Rollout) -> str:
    """Why nothing goes on."""
    hours = rollout.bounds.stall.total_seconds() / 3600
    return (
        f"wave {rollout.wave} stands still: no result for {hours:g} h, "
        f"{rollout.in_flight} plugins in flight, {rollout.waiting} waiting" + _left_out(rollout)
    )


def finished(rollout: Rollout) -> str:
    """What became of a rollout that reached its end."""
    healthy, counted_against = rollout.count(MemberState.HEALTHY), rollout.count(*COUNTED_AGAINST)
    return f"{rollout.target} runs on {healthy} plugins; {counted_against} broke" + _left_out(rollout)


def rolled_back(rollout: Rollout) -> str:
    """What became of the plugins that were rolled back."""
    rolled_back = rollout.count(MemberState.ROLLED_BACK)
    missing = rollout.count(MemberState.ROLLBACK_FAILED, MemberState.ROLLING_BACK)
    return f"{rolled_back} plugins rolled back" + (f", {missing} not confirmed" if missing else "")


def _broke(counts: Counts) -> str:
    return f"{counts.broken} of {counts.exposed} plugins broke ({_percent(counts.rate)})"


def _control(counts: Counts) -> str:
    if not counts.exposed:
        return "no control group"
    return f"{counts.broken} of {counts.exposed} in the control group ({_percent(counts.rate)})"


def _left_out(rollout: Rollout) -> str:
    started_waves = rollout.started_waves
    offline = sum(tally.of(MemberState.OFFLINE) for tally in started_waves)
    skipped = sum(tally.of(MemberState.SKIPPED) for tally in started_waves)
    parts = [f"{count} {label}" for count, label in ((offline, "offline"), (skipped, "left out")) if count]
    return f" ({', '.join(parts)})" if parts else ""


def _percent(rate: float) -> str:
    return f"{100 * rate:.2g} %" if rate < 0.1 else f"{100 * rate:.0f} %"
