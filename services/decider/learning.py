"""Outcomes teach: each verified success or failure of a remedy moves its Beta posterior, and nothing else does.

Rule: a success or a failure counts once; `libs.common.beta_posterior` says what is stated of the counts. A refusal, a
cancellation, an agent that reverted because it lost the plane, or a person who took a remedy back says nothing about
the remedy: it is kept as feedback with the label neutral. A release that fails in staging is held against that release
whatever it was meant to heal.
"""

import enum
from dataclasses import dataclass

from libs.common.beta_posterior import NOTHING, Outcomes

# Stands for every symptom or every release in a key of what was learned.
ANY = "*"


class Label(enum.StrEnum):
    """What an outcome says about the remedy."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    NEUTRAL = "neutral"


@dataclass(frozen=True)
class Lesson:
    """What one finished attempt teaches: its label, and the key it is counted under (None when it counts nowhere)."""

    outcome: str
    label: Label
    release_wide: bool = False


def lesson(fact: str, *, failure: str = "", dead_man: bool = False) -> Lesson:
    """What the fact that ended an attempt says about its remedy. Raises ValueError for a fact that ends none."""
    match fact:
        case "attempt_succeeded":
            return Lesson("success", Label.POSITIVE)
        case "attempt_rolled_back" if failure:
            return Lesson("rolled_back", Label.NEGATIVE)
        case "attempt_rolled_back":
            # The plane was away, a person or a kill switch took it back, or nothing was switched.
            return Lesson("reverted_alone" if dead_man else "taken_back", Label.NEUTRAL)
        case "attempt_rollback_failed":
            return Lesson("rollback_failed", Label.NEGATIVE)
        case "attempt_failed" if failure == "staging_failed":
            return Lesson(failure, Label.NEGATIVE, release_wide=True)
        case "attempt_failed":
            # The sandbox was away, the agent did not answer: the remedy was never seen at work.
            label = Label.NEGATIVE if failure == "command_failed" else Label.NEUTRAL
            return Lesson(failure or "failed", label)
        case "attempt_refused":
            return Lesson("refused", Label.NEUTRAL)
        case "attempt_cancelled":
            return Lesson("cancelled", Label.NEUTRAL)
        case _:
            raise ValueError(f"{fact} does not end an attempt")


def counted(taught: Lesson) -> Outcomes:
    """The successes and failures a lesson adds."""
    return {
        Label.POSITIVE: Outcomes(successes=1.0),
        Label.NEGATIVE: Outcomes(failures=1.0),
        Label.NEUTRAL: NOTHING,
    }[taught.label]
