"""The agent's words on commands: written down first, then said until the plane has them.

Rule: a word and the step it reports are one line of the journal, so there is never one without the other.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from prunella.v1 import agent_pb2 as pb
from prunella_agent.clock import Clock
from prunella_agent.journal import Journal
from prunella_agent.spans import Spans

Outcome = pb.CommandOutcome


class Words:
    """Makes results, writes them down with their step, and hands them to the session."""

    def __init__(self, journal: Journal, clock: Clock, report: Callable[[pb.CommandResult], None]) -> None:
        self._journal = journal
        self._clock = clock
        self._report = report

    def result(
        self,
        about: Any,
        outcome: Outcome.ValueType,
        *,
        detail: str = "",
        spans: Spans | None = None,
        unsolicited: bool = False,
    ) -> pb.CommandResult:
        """A result about a command or a trial, naming the release that runs now."""
        present = self._journal.state.present
        command = about.id if isinstance(about, pb.Command) else about.command
        generation = about.generation if isinstance(about, pb.Command) else about.after.generation
        result = pb.CommandResult(
            command=command,
            attempt=about.attempt,
            generation=generation,
            fence=about.fence,
            outcome=outcome,
            detail=detail[:500],
            release=present.release if present else "",
            digest=present.digest if present else "",
            unsolicited=unsolicited,
            spans=spans.taken if spans else (),
        )
        result.time.FromDatetime(self._clock.now())
        return result

    def say(self, step: str, result: pb.CommandResult, **fields: Any) -> None:
        """Writes the step and the word down, then says it."""
        self._journal.write(
            step, command=result.command, outcome=int(result.outcome), result=encode(result), time=stamp(self._clock),
            **fields,
        )  # fmt: skip
        self._report(result)


def stamp(clock: Clock) -> str:
    """Wall time for the person who reads the journal; nothing is decided by it."""
    return clock.now().isoformat(timespec="milliseconds")


def encode(message: pb.CommandResult | pb.Command) -> str:
    """A message as text for the journal."""
    return base64.b64encode(message.SerializeToString()).decode()


def decode_result(text: str) -> pb.CommandResult:
    """A result from the journal."""
    return pb.CommandResult.FromString(base64.b64decode(text))


def decode_command(text: str) -> pb.Command:
    """A command from the journal."""
    return pb.Command.FromString(base64.b64decode(text))
