"""Why a remedy was chosen, in words for people.

Rule: one sentence says what, how sure and because of what; the reasoning adds every candidate, what was left out and
why, and the odds. Texts that came from outside (a SIRA answer, a plugin) are quoted as data and shortened.
"""

from collections.abc import Sequence

from services.decider.decision import Action, Candidate, DecisionInputs, Origin, Remedy, Tried

LONGEST = 300
SOURCES = {
    Origin.PLAYBOOK: "the playbook says",
    Origin.LEARNED: "verified outcomes say",
    Origin.SIRA: "SIRA says",
    Origin.FALLBACK: "the fallback rule says",
}


def printable(text: str, longest: int = LONGEST) -> str:
    """One line without control characters, shortened."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def sentence(chosen: Candidate, confident: float) -> str:
    """What was chosen, how sure, and because of what."""
    doubt = ""
    if chosen.confidence < confident and chosen.remedy.action != Action.NOTIFY_OPS:
        doubt = f" (below {confident:.2f}, so a person should look)"
    return (
        f"{chosen.remedy}, confidence {chosen.confidence:.2f}{doubt}, "
        f"because {SOURCES[chosen.origin]}: {printable(chosen.why)}"
    )


def reasoning(
    inputs: DecisionInputs, chosen: Candidate, candidates: Sequence[Candidate], confident: float
) -> tuple[str, ...]:
    """The decision in order: what was seen, what was considered, what was left out, what was chosen."""
    lines = [
        _seen(inputs),
        *(f"Tried before: {_named(tried)} ({_ended(tried.outcome, tried.reason)})." for tried in inputs.tried),
        *(_considered(candidate) for candidate in candidates),
    ]
    lines.append(f"Chosen: {sentence(chosen, confident)}.")
    if 0 < chosen.propensity < 1:
        lines.append(f"It was drawn among safe alternatives with probability {chosen.propensity:.2f}.")
    return tuple(lines)


def _seen(inputs: DecisionInputs) -> str:
    where = f"{inputs.package} {inputs.release or 'of an unknown release'}"
    summary = f": {printable(inputs.summary)}" if inputs.summary else ""
    return f"Round {inputs.round}: {where} shows {inputs.symptom}, severity {inputs.severity}{summary}."


def _named(tried: Tried) -> str:
    return str(Remedy(tried.action, tried.release))


def _ended(outcome: str, reason: str) -> str:
    return ": ".join(part for part in (outcome or "without success", printable(reason)) if part)


def _considered(candidate: Candidate) -> str:
    head = f"{candidate.origin.value.capitalize()}: {printable(str(candidate.remedy), 120)}"
    if candidate.excluded:
        return f"{head} – left out: {candidate.excluded}."
    return (
        f"{head} – confidence {candidate.confidence:.2f}, expected {candidate.score:.2f}, "
        f"chosen with probability {candidate.propensity:.2f}: {printable(candidate.why)}."
    )
