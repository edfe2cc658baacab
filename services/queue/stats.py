"""How much work there is.

Rule: every state a task can have is always told, with 0 when nothing is in it, so that a reader never has to guess
whether a state is empty or unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

STATES = ("pending", "processing", "retrying", "completed", "failed")


def complete(counted: Mapping[str, int]) -> dict[str, int]:
    """Tasks by state, in the order of a task's life, with every state there is."""
    return {state: counted.get(state, 0) for state in STATES}
