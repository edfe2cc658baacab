"""What is heard: the agent's words, its figures, and the switch it asks for. Parses or raises Invalid."""

from libs.common.errors import Invalid
from prunella.v1 import ingest_pb2, patcher_pb2
from prunella.v1.events_pb2 import Event
from services.patcher.attempt import CommandFinished, Outcome
from services.patcher.store.permits import Question
from services.patcher.verdict import Sums
from services.patcher.wire.scalars import moment


def command_finished(heard: Event) -> tuple[str, CommandFinished]:
    """The attempt and the agent's word in a fact."""
    told = heard.command_finished
    try:
        outcome = Outcome(told.outcome)
    except ValueError as error:
        raise Invalid(f"unknown outcome {told.outcome!r}", reason="OUTCOME_UNKNOWN", field="outcome") from error
    word = CommandFinished(
        command=told.command,
        kind=told.kind,
        generation=told.generation,
        fence=told.fence,
        outcome=outcome,
        detail=told.detail,
        time=moment(heard.time),
        unasked=told.unasked,
    )
    return told.attempt, word


def sums(told: ingest_pb2.TelemetrySums) -> Sums:
    """Counters of a group."""
    seconds = told.duration.ToTimedelta().total_seconds()
    return Sums(told.beats, told.errors, told.webhook_attempts, told.webhook_failures, seconds)


def question(request: patcher_pb2.AuthorizeApplyRequest) -> Question:
    """The switch an agent asks for. Raises Invalid for a missing part."""
    for field in ("plugin", "command", "attempt", "request_id"):
        text = getattr(request, field)
        if not text or len(text) > 200:
            raise Invalid(f"{field} must be given, up to 200 characters", reason="FIELD_MISSING", field=field)
    return Question(
        request.request_id, request.plugin, request.attempt, request.command, request.generation, request.fence
    )
