"""The agent's receipts (results of commands): written to the journal first, then sent until the plane has them.

Rule: a receipt and the step it reports are one line of the journal, so there is never one without the other. Only a
receipt that says that nothing was changed is sent also when the disk does not take it: it is remembered here then, and
after a death the command that comes again is judged anew.
"""

from __future__ import annotations

import base64
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from prunella.v1 import agent_pb2 as pb
from prunella_agent.clock import Clock
from prunella_agent.journal import Journal
from prunella_agent.spans import Spans
from prunella_agent.state import MAX_REMEMBERED

log = logging.getLogger("prunella_agent.receipts")

Outcome = pb.CommandOutcome


class Receipts:
    """Creates receipts, writes each to the journal with its step, and passes it to the session."""

    def __init__(self, journal: Journal, clock: Clock, report: Callable[[pb.CommandResult], None]) -> None:
        self._journal = journal
        self._clock = clock
        self._report = report
        self._unwritten: OrderedDict[str, pb.CommandResult] = OrderedDict()

    def known(self, command: str) -> pb.CommandResult | None:
        """The receipt that a command has, if it has one."""
        written = self._journal.state.receipts.get(command)
        return decode_result(written) if written is not None else self._unwritten.get(command)

    def create(
        self,
        about: Any,
        outcome: Outcome.ValueType,
        *,
        detail: str = "",
        spans: Spans | None = None,
        unsolicited: bool = False,
    ) -> pb.CommandResult:
        """A receipt about a command or a switch in probation, naming the release that runs now."""
        active = self._journal.state.active
        command = about.id if isinstance(about, pb.Command) else about.command
        generation = about.generation if isinstance(about, pb.Command) else about.after.generation
        result = pb.CommandResult(
            command=command,
            attempt=about.attempt,
            generation=generation,
            fence=about.fence,
            outcome=outcome,
            detail=detail[:500],
            release=active.release if active else "",
            digest=active.digest if active else "",
            unsolicited=unsolicited,
            spans=spans.taken if spans else (),
        )
        result.time.FromDatetime(self._clock.now())
        return result

    def record(self, step: str, result: pb.CommandResult, **fields: Any) -> None:
        """Writes the step and its receipt to the journal, then sends the receipt."""
        fields |= {"command": result.command, "outcome": int(result.outcome), "result": encode(result)}
        self._journal.write(step, time=timestamp(self._clock), **fields)
        self._report(result)

    def answer(
        self,
        command: pb.Command,
        outcome: Outcome.ValueType,
        detail: str = "",
        spans: Spans | None = None,
        **fields: Any,
    ) -> None:
        """Records the receipt of a command that changed nothing; `fields` go into the journal with it."""
        receipt = self.create(command, outcome, detail=detail, spans=spans)
        try:
            self.record("RECEIPT", receipt, **fields)
        except OSError as error:
            log.warning("the receipt of command %s is not on the disk: %s", command.id, error)
            self._unwritten[command.id] = receipt
            while len(self._unwritten) > MAX_REMEMBERED:
                self._unwritten.popitem(last=False)
            self._report(receipt)


def timestamp(clock: Clock) -> str:
    """Wall time for whoever reads the journal; nothing is decided by it."""
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
