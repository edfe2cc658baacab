"""What a policy would do, before anybody depends on it.

Rule: the same gates answer, with everything they have against a situation and not only the first thing. Two policies
are compared on the same situations, and only what would turn out differently is told.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from services.patcher.policy.gates import ask, learning, objections
from services.patcher.policy.model import Allow, Policy, Reply, Situation


@dataclass(frozen=True)
class Preview:
    """What would happen: the answer in force, every objection, and whether the outcome would teach."""

    reply: Reply
    objections: tuple[Reply, ...]
    learns: bool

    @property
    def word(self) -> str:
        """The reply in one word: allow, hold, refuse, ask or takeback."""
        return type(self.reply).__name__.lower()

    @property
    def sentence(self) -> str:
        """The reply for people."""
        if isinstance(self.reply, Allow):
            return "it would go on" if self.learns else "it would go on, and its outcome would teach nothing"
        return f"{self.word} at {self.reply.gate}: {self.reply.reason}"


@dataclass(frozen=True)
class Turn:
    """A situation, by its place, that would turn out differently."""

    place: int
    before: Preview
    after: Preview


def would(policy: Policy, situation: Situation) -> Preview:
    """What a policy would answer."""
    return Preview(ask(policy, situation), objections(policy, situation), learning(policy, situation) == Allow())


def compare(old: Policy, new: Policy, situations: Iterable[Situation]) -> tuple[Turn, ...]:
    """Which situations a change of policy would turn."""
    pairs = ((would(old, each), would(new, each)) for each in situations)
    return tuple(Turn(place, before, after) for place, (before, after) in enumerate(pairs) if before != after)
