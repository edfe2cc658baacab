"""Outcomes teach: each verified success or failure of a remedy moves its Beta posterior, and nothing else does.

Rule: a success or a failure counts once; `libs.common.beta_posterior` says how sure the counts make us. A refusal, a
cancellation, an agent that reverted because it lost the plane, or a person who rolled a remedy back says nothing about
the remedy: it is saved as feedback with the label neutral, as is a commit that no traffic ever proved. When the same
came back under a remedy that had healed it, that counts against it, once, beside the success; what came back under
something else says nothing of it. A release that fails in staging is held against that release whatever it was meant to
heal.
"""

import enum
from dataclasses import dataclass

from libs.common.beta_posterior import NO_OUTCOMES, Outcomes

# Stands for every symptom or every release in a key of what was learned.
ANY = "*"


class Label(enum.StrEnum):
    """What an outcome says about the remedy."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    NEUTRAL = "neutral"


@dataclass(frozen=True)
class LabelledOutcome:
    """What one finished attempt teaches; `release_wide`: about its release, whatever that was meant to heal."""

    outcome: str
    label: Label
    release_wide: bool = False


WATCHED = {
    "proven": LabelledOutcome("success", Label.POSITIVE),
    "worse": LabelledOutcome("worse_after_commit", Label.NEGATIVE),
}


def label_outcome(fact: str, *, failure: str = "", dead_man: bool = False) -> LabelledOutcome:
    """What the fact that ended an attempt says about its remedy. Raises ValueError for a fact that ends none.

    A watch that ended comes with its outcome as `failure`. incident_reopened says it of the attempt that had healed the
    incident, when the same came back under it.
    """
    match fact:
        case "incident_reopened":
            return LabelledOutcome("recurred", Label.NEGATIVE)
        case "attempt_succeeded":
            return LabelledOutcome("success", Label.POSITIVE)
        case "attempt_watch_ended":
            # No traffic came in time, or it runs something else by now: nothing is known of the remedy.
            return WATCHED.get(failure, LabelledOutcome(failure or "unproven", Label.NEUTRAL))
        case "attempt_rolled_back" if failure:
            return LabelledOutcome("rolled_back", Label.NEGATIVE)
        case "attempt_rolled_back":
            # The plane was away, a person or a kill switch took it back, or nothing was switched.
            return LabelledOutcome("reverted_alone" if dead_man else "taken_back", Label.NEUTRAL)
        case "attempt_rollback_failed":
            return LabelledOutcome("rollback_failed", Label.NEGATIVE)
        case "attempt_failed" if failure == "staging_failed":
            return LabelledOutcome(failure, Label.NEGATIVE, release_wide=True)
        case "attempt_failed":
            # The sandbox was away, the agent did not answer: the remedy was never seen at work.
            label = Label.NEGATIVE if failure == "command_failed" else Label.NEUTRAL
            return LabelledOutcome(failure or "failed", label)
        case "attempt_refused":
            return LabelledOutcome("refused", Label.NEUTRAL)
        case "attempt_cancelled":
            return LabelledOutcome("cancelled", Label.NEUTRAL)
        case _:
            raise ValueError(f"{fact} does not end an attempt")


def count_of(labelled: LabelledOutcome) -> Outcomes:
    """The successes and failures that an outcome adds."""
    return {
        Label.POSITIVE: Outcomes(successes=1.0),
        Label.NEGATIVE: Outcomes(failures=1.0),
        Label.NEUTRAL: NO_OUTCOMES,
    }[labelled.label]
