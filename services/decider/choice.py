"""The choice: one remedy for one round of an incident, down a ladder, with the odds of everything that was considered.

Rule: playbook → learned outcomes → external SIRA → fallback heuristics. On each rung only eligible candidates count:
not tried before in this incident, not the release that runs already, an action we know; silence goes to a person
whatever anyone says. The first tier with a candidate whose confidence reaches `confident` decides; several
safe ones in a tier are drawn by Thompson sampling, and the probability of each is estimated with the same source of
chance and stored. When nobody is that sure, the surest proposal stands, so that a person sees it; fallback speaks
only when SIRA has no eligible answer.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from libs.common.beta_posterior import NO_OUTCOMES, Outcomes, floor_hundredths, prior_with_bound
from services.decider.decision import (
    ACTIONS,
    FOR_PEOPLE,
    INCOMPATIBILITY,
    PASSIVE,
    UNMET,
    Action,
    Candidate,
    Choice,
    DecisionInputs,
    Opinion,
    Origin,
    Remedy,
)
from services.decider.explanation import reasoning, sentence
from services.decider.fallback import heuristics
from services.decider.playbook import MAY_HAVE_RELEASE, RELEASE, WITH_CONFIGURATION, WITH_RELEASE, Playbook

# Rises when the same inputs may be decided differently.
VERSION = "2"
# Enough for a propensity good to about two hundredths, cheap enough for the hot path.
DRAWS = 1000
# Of many remedies that healed before, only the surest are considered (and stored).
MOST_LEARNED = 20
RUNGS = {Origin.PLAYBOOK: 0, Origin.LEARNED: 1, Origin.SIRA: 2, Origin.FALLBACK: 3}


def choose(
    inputs: DecisionInputs,
    playbook: Playbook,
    learned: Mapping[Remedy, Outcomes],
    *,
    opinion: Opinion | None,
    rng: random.Random,
) -> Choice:
    """The choice for these inputs. `learned` holds verified outcomes by remedy; `opinion` is SIRA's answer, if any."""
    candidates = _candidates(inputs, playbook, learned, opinion)
    eligible = [candidate for candidate in candidates if not candidate.excluded]
    sure = [
        candidate
        for candidate in eligible
        if candidate.confidence >= playbook.confident and candidate.origin is not Origin.FALLBACK
    ]
    if sure:
        best = min(candidate.tier for candidate in sure)
        drawn = _draw([candidate for candidate in sure if candidate.tier == best], rng)
    else:
        drawn = [replace(_surest(eligible), propensity=1.0)]
    chosen = drawn[0]
    odds = {(candidate.remedy, candidate.origin): candidate.propensity for candidate in drawn}
    considered = tuple(
        replace(candidate, propensity=odds.get((candidate.remedy, candidate.origin), 0.0)) for candidate in candidates
    )
    return Choice(
        chosen=chosen,
        candidates=considered,
        confident=bool(sure),
        explanation=sentence(chosen, playbook.confident),
        reasoning=reasoning(inputs, chosen, considered, playbook.confident),
    )


def _candidates(
    inputs: DecisionInputs, playbook: Playbook, learned: Mapping[Remedy, Outcomes], opinion: Opinion | None
) -> list[Candidate]:
    """Every candidate of every rung, in order, with the reason where it is not eligible."""
    found = []
    known = playbook.matching(inputs.symptom, inputs.package, inputs.release)
    for entry in known:
        outcomes = entry.prior + learned.get(entry.remedy, NO_OUTCOMES)
        tier = (RUNGS[Origin.PLAYBOOK], *entry.tier)
        found.append(_believed(entry.remedy, Origin.PLAYBOOK, tier, outcomes, entry.why))
    named = {entry.remedy for entry in known}
    healed = [(remedy, seen) for remedy, seen in learned.items() if remedy not in named and seen.successes > 0]
    healed.sort(key=lambda item: (-item[1].confidence, item[0].action, item[0].release))
    for remedy, seen in healed[:MOST_LEARNED]:
        why = f"it healed {seen.successes:g} and failed {seen.failures:g} times before"
        found.append(_believed(remedy, Origin.LEARNED, (RUNGS[Origin.LEARNED],), seen, why))
    if opinion is not None:
        found.append(_answered(opinion, playbook.sira_cap, learned))
    found += [
        Candidate(
            Remedy(guess.action),
            Origin.FALLBACK,
            (RUNGS[Origin.FALLBACK],),
            guess.confidence,
            guess.confidence,
            guess.why,
        )
        for guess in heuristics(inputs.figures)
    ]
    return [replace(candidate, excluded=_excluded(candidate.remedy, inputs)) for candidate in found]


def _believed(remedy: Remedy, origin: Origin, tier: tuple[int, ...], outcomes: Outcomes, why: str) -> Candidate:
    return Candidate(remedy, origin, tier, outcomes.mean, outcomes.confidence, why, outcomes.alpha, outcomes.beta)


def _answered(opinion: Opinion, cap: float, learned: Mapping[Remedy, Outcomes]) -> Candidate:
    """SIRA's answer: capped, and as a prior that our own experience with the remedy moves."""
    remedy = Remedy(opinion.action, opinion.release)
    confidence = min(opinion.confidence, cap)
    seen = learned.get(remedy, NO_OUTCOMES)
    outcomes = prior_with_bound(confidence) + seen if confidence > 0 else seen
    bound = floor_hundredths(confidence) if seen == NO_OUTCOMES else min(outcomes.confidence, floor_hundredths(cap))
    why = opinion.why or "SIRA gave no reason"
    return Candidate(
        remedy, Origin.SIRA, (RUNGS[Origin.SIRA],), outcomes.mean, bound, why, outcomes.alpha, outcomes.beta
    )


def _excluded(remedy: Remedy, inputs: DecisionInputs) -> str:
    """Why a remedy is not eligible; empty when it is."""
    if remedy.action not in ACTIONS:
        return "the action is not known"
    if inputs.symptom in FOR_PEOPLE and remedy.action not in PASSIVE:
        return FOR_PEOPLE[inputs.symptom]
    if remedy.action in WITH_RELEASE and not remedy.release:
        return f"{remedy.action} needs a release"
    configures = remedy.action in WITH_CONFIGURATION
    if remedy.release and not configures and remedy.action not in MAY_HAVE_RELEASE:
        return f"{remedy.action} takes no release"
    if remedy.release and not RELEASE.fullmatch(remedy.release):
        return f"the {'configuration' if configures else 'release'} is no version"
    if remedy.release and not configures and remedy.release == inputs.release:
        return "this release runs already"
    if remedy.action in PASSIVE:
        return ""
    if remedy.action == Action.ROLLBACK and inputs.symptom == INCOMPATIBILITY and not inputs.figures.get(UNMET):
        return "what runs fits its host, only another release was refused"
    for tried in inputs.tried:
        if tried.covers(remedy):
            return f"tried in this incident: {tried.outcome or 'without success'}"
    return ""


def _draw(tier: Sequence[Candidate], rng: random.Random) -> list[Candidate]:
    """The candidates of a tier with their propensities, the chosen one first."""
    if len(tier) == 1:
        return [replace(tier[0], propensity=1.0)]

    def winner() -> int:
        draws = [rng.betavariate(candidate.alpha, candidate.beta) for candidate in tier]
        return draws.index(max(draws))

    chosen = winner()
    # The real draw counts too, so the propensity of what was chosen is never zero.
    wins = [0] * len(tier)
    wins[chosen] = 1
    for _ in range(DRAWS):
        wins[winner()] += 1
    drawn = [replace(candidate, propensity=won / (DRAWS + 1)) for candidate, won in zip(tier, wins, strict=True)]
    return [drawn[chosen], *(candidate for place, candidate in enumerate(drawn) if place != chosen)]


def _surest(eligible: Sequence[Candidate]) -> Candidate:
    """The surest proposal; on a tie the higher rung. Telling people is always eligible, so there is one."""
    answered = any(candidate.origin is Origin.SIRA for candidate in eligible)
    rivals = [candidate for candidate in eligible if not (answered and candidate.origin is Origin.FALLBACK)]
    return max(rivals, key=lambda candidate: (candidate.confidence, [-place for place in candidate.tier]))
