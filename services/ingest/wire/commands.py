"""Commands and the agents' words on them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from libs.common import names
from libs.common.errors import Invalid
from libs.common.facts import fact
from libs.common.telemetry import ForeignSpan
from libs.common.text import clean_text
from prunella.v1 import agent_pb2, events_pb2, ingest_pb2
from prunella.v1.events_pb2 import Event
from services.ingest import commands
from services.ingest.commands import LIFETIME, Command, Kind, Result, State, Word
from services.ingest.wire.moments import moment, span, stamp

SOURCE = "ingest"
LONGEST = 200
LONGEST_DETAIL = 2000
LARGEST = 48 * 1024
MOST_SPANS = 32


def message(command: Command) -> agent_pb2.Command:
    """A command as an agent gets it."""
    return agent_pb2.Command(
        id=command.id,
        attempt=command.attempt,
        kind=agent_pb2.CommandKind.ValueType(int(command.kind)),
        generation=command.generation,
        fence=command.fence,
        deadline_time=stamp(command.deadline),
        release=command.release,
        envelope=command.envelope,
        digest=command.digest,
        size=command.size,
        dead_man_duration=span(command.dead_man),
        traceparent=command.traceparent,
        config=command.config,
    )


def record(command: Command) -> ingest_pb2.CommandRecord:
    """A command as people and patcher see it."""
    return ingest_pb2.CommandRecord(
        name=names.command(command.id),
        plugin=command.plugin,
        command=message(command),
        state=str(command.state),
        issue_time=stamp(command.issue_time),
        first_write_time=stamp(command.first_write_time),
        end_time=stamp(command.end_time),
        detail=command.detail,
    )


def issued(request: ingest_pb2.IssueCommandRequest, now: datetime, traceparent: str) -> Command:
    """The command a request asks for, still without generation and fence. Raises Invalid."""
    for field in ("request_id", "plugin", "attempt"):
        value = getattr(request, field)
        if not value or len(value) > LONGEST or "\0" in value:
            raise Invalid(f"{field} must be 1 to {LONGEST} characters", reason="FIELD_INVALID", field=field)
    if len(request.envelope) + len(request.config) > LARGEST:
        raise Invalid(f"envelope and config may have {LARGEST} bytes", reason="COMMAND_TOO_LARGE", field="envelope")
    kind = commands.check_new(request.kind, request.generation, request.release, request.digest)
    deadline = moment(request.deadline_time, "deadline_time") if request.HasField("deadline_time") else now + LIFETIME
    return Command(
        id=names.new_id(now),
        request_id=request.request_id,
        plugin=request.plugin.removeprefix("plugins/"),
        attempt=request.attempt,
        incident=request.incident,
        kind=kind,
        generation=request.generation,
        fence=0,
        state=State.PENDING,
        deadline=deadline,
        issue_time=now,
        release=request.release,
        envelope=request.envelope,
        digest=request.digest,
        size=request.size,
        dead_man=max(0.0, request.dead_man_duration.ToTimedelta().total_seconds()),
        config=request.config,
        traceparent=traceparent,
    )


def result(given: agent_pb2.CommandResult, *, failed: bool = False) -> Result:
    """An agent's word. Raises Invalid. `failed`: it came through FailCommand, whatever it says."""
    outcome = agent_pb2.COMMAND_OUTCOME_FAILED if failed else given.outcome
    if outcome not in {int(word) for word in Word}:
        raise Invalid("outcome must be one of the command outcomes", reason="OUTCOME_UNKNOWN", field="outcome")
    if len(given.release) > LONGEST or len(given.digest) > LONGEST or "\0" in given.release + given.digest:
        raise Invalid(f"release and digest may have {LONGEST} characters", reason="FIELD_INVALID", field="release")
    return Result(
        command=given.command,
        attempt=given.attempt,
        generation=given.generation,
        fence=given.fence,
        word=Word(outcome),
        detail=clean_text(given.detail, LONGEST_DETAIL),
        release=given.release,
        digest=given.digest,
        unasked=given.unasked,
    )


def spans(given: agent_pb2.CommandResult, command: Command) -> list[ForeignSpan]:
    """The steps an agent took, for the trace of its command."""
    made = []
    for step in given.spans[:MOST_SPANS]:
        start, end = _moment(step.start_time), _moment(step.end_time)
        if start and end and abs(end - start) < timedelta(days=1):
            parent = step.traceparent or command.traceparent
            # An agent may only speak in the trace of the command it was given.
            if parent[3:35] != command.traceparent[3:35]:
                parent = command.traceparent
            attributes = {"plugin": command.plugin, "command": command.id}
            made.append(ForeignSpan(step.name[:80], start, end, parent, step.error[:200], attributes))
    return made


def issued_fact(command: Command, merchant: str) -> Event:
    """command_issued."""
    told = events_pb2.CommandIssued(
        command=command.id,
        attempt=command.attempt,
        kind=word(command.kind),
        generation=command.generation,
        fence=command.fence,
    )
    reason = f"{word(command.kind)} for attempt {command.attempt}"
    return fact(
        SOURCE,
        told,
        actor="patcher",
        reason=reason,
        plugin=command.plugin,
        merchant=merchant,
        incident=command.incident,
    )


def finished_fact(command: Command, outcome: str, merchant: str, said: Result | None, actor: str = "") -> Event:
    """command_finished, with the agent's word or with the reason why there is none."""
    detail = said.detail if said else "no final word before the deadline"
    told = events_pb2.CommandFinished(
        command=command.id,
        attempt=command.attempt,
        kind=word(command.kind),
        generation=command.generation,
        fence=command.fence,
        outcome=outcome,
        detail=detail,
        release=said.release if said else "",
        digest=said.digest if said else "",
        unasked=bool(said and said.unasked),
    )
    reason = f"{word(command.kind)} {outcome}" + (f": {detail}" if detail else "")
    return fact(
        SOURCE,
        told,
        actor=actor,
        reason=reason,
        plugin=command.plugin,
        merchant=merchant,
        incident=command.incident,
    )


def word(kind: Kind) -> str:
    """The kind as facts spell it."""
    return kind.name.lower()


def _moment(timestamp: object) -> datetime | None:
    try:
        made = timestamp.ToDatetime(UTC)  # type: ignore[attr-defined]
    except (ValueError, OverflowError):
        return None
    return made if made.year > 2000 else None
