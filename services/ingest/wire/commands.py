"""Commands and the agents' receipts for them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from libs.common import names
from libs.common.errors import Invalid
from libs.common.facts import fact
from libs.common.telemetry import FinishedSpan
from libs.common.text import clean_text
from libs.common.timestamps import length, moment
from prunella.v1 import agent_pb2, events_pb2, ingest_pb2
from prunella.v1.events_pb2 import Event
from services.ingest import command_lifecycle
from services.ingest.command_lifecycle import LIFETIME, Command, Kind, Outcome, Receipt, State
from services.ingest.wire.timestamps import span, stamp

SOURCE = "ingest"
LONGEST = 200
LONGEST_DETAIL = 2000
LARGEST = 48 * 1024
MOST_SPANS = 32
# Seconds by which a clock may seem to differ because a beat took its time.
ON_ITS_WAY = 30.0


def message(command: Command, now: datetime | None = None) -> agent_pb2.Command:
    """A command as an agent gets it now; without `now` as it stands."""
    same = ("id", "attempt", "generation", "fence", "release", "envelope", "digest", "size", "traceparent", "config")
    return agent_pb2.Command(
        kind=agent_pb2.CommandKind.ValueType(int(command.kind)),
        deadline_time=stamp(command.deadline_time),
        dead_man_duration=span(command.dead_man_seconds),
        remaining_duration=span(max(0.0, (command.deadline_time - now).total_seconds())) if now else None,
        **{name: getattr(command, name) for name in same},
    )


def resource(command: Command) -> ingest_pb2.IssuedCommand:
    """A command as operators and patcher see it."""
    return ingest_pb2.IssuedCommand(
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
    """The command a request asks for, still without merchant, generation and fence. Raises Invalid."""
    for field in ("request_id", "plugin", "attempt"):
        value = getattr(request, field)
        if not value or len(value) > LONGEST or "\0" in value:
            raise Invalid(f"{field} must be 1 to {LONGEST} characters", reason="FIELD_INVALID", field=field)
    if len(request.envelope) + len(request.config) > LARGEST:
        raise Invalid(f"envelope and config may have {LARGEST} bytes", reason="COMMAND_TOO_LARGE", field="envelope")
    kind = command_lifecycle.check_new(request.kind, request.generation, request.release, request.digest)
    deadline = moment(request.deadline_time, "deadline_time") if request.HasField("deadline_time") else now + LIFETIME
    same = ("request_id", "attempt", "incident", "generation", "release", "envelope", "digest", "size", "config")
    return Command(
        id=names.new_id(now),
        plugin=request.plugin.removeprefix("plugins/"),
        merchant="",
        kind=kind,
        fence=0,
        state=State.PENDING,
        deadline_time=deadline,
        issue_time=now,
        dead_man_seconds=max(0.0, length(request.dead_man_duration, "dead_man_duration").total_seconds()),
        traceparent=traceparent,
        **{name: getattr(request, name) for name in same},
    )


def receipt(result: agent_pb2.CommandResult, *, failed: bool = False) -> Receipt:
    """An agent's receipt. Raises Invalid. `failed`: it came through FailCommand, whatever it says."""
    outcome = agent_pb2.COMMAND_OUTCOME_FAILED if failed else result.outcome
    if outcome not in {int(known) for known in Outcome}:
        raise Invalid("outcome must be one of the command outcomes", reason="OUTCOME_UNKNOWN", field="outcome")
    if len(result.release) > LONGEST or len(result.digest) > LONGEST or "\0" in result.release + result.digest:
        raise Invalid(f"release and digest may have {LONGEST} characters", reason="FIELD_INVALID", field="release")
    same = ("command", "attempt", "generation", "fence", "release", "digest", "unsolicited")
    return Receipt(
        outcome=Outcome(outcome),
        detail=clean_text(result.detail, LONGEST_DETAIL),
        **{name: getattr(result, name) for name in same},
    )


def spans(result: agent_pb2.CommandResult, command: Command, clock_skew: float) -> list[FinishedSpan]:
    """The steps an agent took, for the trace of its command; its clock is so many seconds ahead of ours."""
    made = []
    ahead = timedelta(seconds=clock_skew if abs(clock_skew) > ON_ITS_WAY else 0.0)
    for step in result.spans[:MOST_SPANS]:
        start, end = _time(step.start_time, ahead), _time(step.end_time, ahead)
        if start and end and abs(end - start) < timedelta(days=1):
            parent = step.traceparent or command.traceparent
            # An agent may only speak in the trace of the command it was result.
            if parent[3:35] != command.traceparent[3:35]:
                parent = command.traceparent
            attributes = {"plugin": command.plugin, "command": command.id}
            made.append(FinishedSpan(step.name[:80], start, end, parent, step.error[:200], attributes))
    return made


def issued_fact(command: Command) -> Event:
    """command_issued."""
    made = events_pb2.CommandIssued(**_about(command))
    return _fact(command, made, "patcher", f"{kind_name(command.kind)} for attempt {command.attempt}")


def finished_fact(command: Command, outcome: str, receipt: Receipt | None, actor: str = "") -> Event:
    """command_finished, with the agent's receipt or with the reason why there is none."""
    detail = receipt.detail if receipt else "no final word before the deadline"
    made = events_pb2.CommandFinished(**_about(command), outcome=outcome, detail=detail)
    if receipt:
        made.release, made.digest, made.unsolicited = receipt.release, receipt.digest, receipt.unsolicited
    return _fact(command, made, actor, f"{kind_name(command.kind)} {outcome}" + (f": {detail}" if detail else ""))


def _about(command: Command) -> dict[str, Any]:
    about = {name: getattr(command, name) for name in ("attempt", "generation", "fence")}
    return {"command": command.id, "kind": kind_name(command.kind), **about}


def _fact(command: Command, message: Message, actor: str, reason: str) -> Event:
    return fact(
        SOURCE,
        message,
        actor=actor,
        reason=reason,
        plugin=command.plugin,
        merchant=command.merchant,
        incident=command.incident,
    )


def kind_name(kind: Kind) -> str:
    """The kind as facts spell it."""
    return kind.name.lower()


def _time(timestamp: Timestamp, ahead: timedelta) -> datetime | None:
    try:
        made = moment(timestamp, "time") - ahead
    except (Invalid, OverflowError):
        return None
    return made if made.year > 2000 else None
