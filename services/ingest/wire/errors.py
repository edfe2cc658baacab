"""Errors of plugins as they are forwarded to the queue.

Rule: whose error it is comes from the credential alone; texts are shortened to what is stored anywhere (8 KiB of
message, 64 KiB of stack, without its middle), and what cannot be stored as text is replaced. Whether a report is
accepted is for the queue to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from libs.common import names
from libs.common.errors import Problem
from libs.common.text import clean_text
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import queue_pb2
from services.ingest.store.plugins import Identity

LONGEST_MESSAGE = 8 * 1024
LONGEST_STACK = 64 * 1024
LEFT_OUT = "\n… left out …\n"
MOST_REPORTS = 100


def reported_error(identity: Identity, release: str, error: pb.ErrorReport) -> queue_pb2.ReportedError:
    """An error of this plugin."""
    made = queue_pb2.ReportedError(
        plugin=identity.plugin,
        merchant=identity.merchant,
        package=identity.package,
        # Reported by the agent, and not worth an error when it is no version.
        release=release if names.is_id(release) else "",
        label=identity.label,
        error=error,
    )
    made.error.message = shortened(made.error.message, LONGEST_MESSAGE)
    made.error.stack = shortened(made.error.stack, LONGEST_STACK)
    return made


def reported_errors(
    identity: Identity, release: str, errors: Sequence[pb.ErrorReport]
) -> tuple[list[tuple[int, queue_pb2.ReportedError]], list[pb.BatchRejection]]:
    """The errors in a message of the stream, with the place of each, and those that can never be accepted."""
    good: list[tuple[int, queue_pb2.ReportedError]] = []
    rejections: list[pb.BatchRejection] = []
    for index, error in enumerate(errors[: 2 * MOST_REPORTS]):
        if index >= MOST_REPORTS:
            rejections.append(
                _refused(index, "TOO_MANY", "reports", "a message may have 100 reports; send more messages")
            )
        elif not error.id:
            rejections.append(_refused(index, "ID_MISSING", "id", "a report on a stream needs the id of its counter"))
        else:
            good.append((index, reported_error(identity, release, error)))
    return good, rejections


def rejection(index: int, problem: Problem) -> pb.BatchRejection:
    """The report at this place is not accepted, for this reason."""
    return _refused(index, problem.reason, problem.field, problem.message)


def rejections(outcomes: Iterable[tuple[int, queue_pb2.ReportOutcome]]) -> list[pb.BatchRejection]:
    """What the queue refused, by the place it had in the agent's message."""
    return [_refused(index, one.refusal, one.field, one.message) for index, one in outcomes if one.refusal]


def shortened(text: str, most: int) -> str:
    """The text cleaned, and without its middle when it has more than so many bytes."""
    raw = clean_text(text).encode()
    if len(raw) <= most:
        return raw.decode()
    half = (most - len(LEFT_OUT.encode())) // 2
    return raw[:half].decode(errors="ignore") + LEFT_OUT + raw[-half:].decode(errors="ignore")


def _refused(index: int, reason: str, field: str, message: str) -> pb.BatchRejection:
    return pb.BatchRejection(index=index, reason=reason, field=field, message=message)
