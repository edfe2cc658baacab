"""What a policy would do, before anybody depends on it.

Rule: the same gates answer, with everything they have against a situation and not only the first thing. Two policies
are compared on the same situations, and only what would turn out differently is told.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from services.patcher.policy.gates import ask, learning, objections
from services.patcher.policy.model import Allow, GateInputs, Policy, Reply


@dataclass(frozen=True)
class Preview:
    """What would happen: the answer in force, every objection, and whether the outcome would teach."""

    reply: Reply
    objections: tuple[Reply, ...]
    teaches: bool

    @property
    def outcome(self) -> str:
        """The reply in one word: allow, hold, refuse, ask or takeback."""
        return type(self.reply).__name__.lower()

    @property
    def explanation(self) -> str:
        """The reply for people."""
        if isinstance(self.reply, Allow):
            return "it would go on" if self.teaches else "it would go on, and its outcome would teach nothing"
        return f"{self.outcome} at {self.reply.gate}: {self.reply.reason}"


@dataclass(frozen=True)
class Replay:
    """A situation, by its place, that would turn out differently."""

    index: int
    before: Preview
    after: Preview


def preview(policy: Policy, inputs: GateInputs) -> Preview:
    """What a policy would answer."""
    return Preview(ask(policy, inputs), objections(policy, inputs), learning(policy, inputs) == Allow())


def compare(old: Policy, new: Policy, gate_inputs: Iterable[GateInputs]) -> tuple[Replay, ...]:
    """Which situations a change of policy would turn."""
    pairs = ((preview(old, each), preview(new, each)) for each in gate_inputs)
    return tuple(Replay(index, before, after) for index, (before, after) in enumerate(pairs) if before != after)
