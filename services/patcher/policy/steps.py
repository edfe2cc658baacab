"""What kind of change it is to come from one version to another (SemVer 2.0.0), for the gate that asks people."""

import enum
from typing import Final

from prunella_agent import versions


class Step(enum.StrEnum):
    """What kind of change it is to come from one version to another, in words."""

    FORWARD = "a step forward"
    MAJOR = "a major change"
    DOWNGRADE = "a downgrade"
    PRE_RELEASE = "a pre-release"
    UNCLEAR = "no change that can be compared"


# The playbook may name these, for the package and the symptom it knows.
WRITTEN_DOWN: Final = frozenset({Step.DOWNGRADE, Step.PRE_RELEASE})


def step(before: str, after: str) -> Step:
    """What kind of change this is; the same version again is a step forward."""
    first, second = versions.parse(before), versions.parse(after)
    if first is None or second is None:
        return Step.UNCLEAR
    if first.major != second.major:
        return Step.MAJOR
    difference = versions.order(first, second)
    if difference > 0:
        return Step.DOWNGRADE
    if difference == 0:
        return Step.FORWARD if first.build == second.build else Step.UNCLEAR
    return Step.PRE_RELEASE if second.pre else Step.FORWARD
