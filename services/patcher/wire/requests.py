"""Requests and facts of others as records: the agent's receipts, its figures, the permit it asks for; or Invalid."""

from libs.common.errors import Invalid
from prunella.v1 import ingest_pb2, patcher_pb2
from prunella.v1.events_pb2 import Event
from services.patcher.attempt import CommandFinished, Outcome
from services.patcher.evidence import Sums
from services.patcher.store.permits import PermitRequest
from services.patcher.wire.scalars import time_of


def command_finished(event: Event) -> tuple[str, CommandFinished]:
    """The attempt and the agent's word in a fact."""
    message = event.command_finished
    try:
        outcome = Outcome(message.outcome)
    except ValueError as error:
        raise Invalid(f"unknown outcome {message.outcome!r}", reason="OUTCOME_UNKNOWN", field="outcome") from error
    receipt = CommandFinished(
        command=message.command,
        kind=message.kind,
        generation=message.generation,
        fence=message.fence,
        outcome=outcome,
        detail=message.detail,
        time=time_of(event.time),
        unsolicited=message.unsolicited,
    )
    return message.attempt, receipt


def sums(message: ingest_pb2.TelemetrySums) -> Sums:
    """Counters of a group."""
    seconds = message.duration.ToTimedelta().total_seconds()
    return Sums(
        beats=message.beats,
        errors=message.errors,
        attempts=message.webhook_attempts,
        failures=message.webhook_failures,
        seconds=seconds,
        signature_failures=message.signature_failures,
    )


def permit_request(request: patcher_pb2.AuthorizeApplyRequest) -> PermitRequest:
    """The switch an agent asks for. Raises Invalid for a missing part."""
    for field in ("plugin", "command", "attempt", "request_id"):
        text = getattr(request, field)
        if not text or len(text) > 200:
            raise Invalid(f"{field} must be given, up to 200 characters", reason="FIELD_MISSING", field=field)
    return PermitRequest(
        request.request_id, request.plugin, request.attempt, request.command, request.generation, request.fence
    )
