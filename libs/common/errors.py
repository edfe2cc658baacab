"""One family of errors for everything that can be said to a caller.

A problem says what is wrong in a sentence for people, names the reason in UPPER_SNAKE for programs, and repeats every
variable of the sentence in `metadata`. Each class stands for one canonical gRPC code (see `libs.common.rpc`); whatever
is not a Problem is a defect of ours and reaches callers as INTERNAL without detail.
"""

# The names are words of the design; none of them needs the suffix "Error".
# ruff: noqa: N818

from typing import ClassVar, TypeVar

T = TypeVar("T")


class Problem(Exception):
    """Something a caller must know: a sentence, a reason, the field it is about, and when to try again.

    `retry_after` is in seconds. `metadata` holds the variables of the sentence as strings.
    """

    code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        field: str = "",
        retry_after: float | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field = field
        self.retry_after = retry_after
        self.metadata = metadata

    def __repr__(self) -> str:
        """Class, reason and sentence; enough to read a log line."""
        return f"{type(self).__name__}({self.reason}: {self.message})"

    def __reduce__(self) -> tuple[object, ...]:
        """Keyword-only arguments survive copying and pickling."""
        return _rebuild, (type(self), self.message, self.reason, self.field, self.retry_after, self.metadata)


class Invalid(Problem):
    """The request itself is wrong, whatever the state of the plane."""

    code = "INVALID_ARGUMENT"


class NotFound(Problem):
    """No such thing."""

    code = "NOT_FOUND"


class Conflict(Problem):
    """It exists already, and differs."""

    code = "ALREADY_EXISTS"


class Stale(Problem):
    """The caller acted on an older state: read again, then decide again."""

    code = "ABORTED"


class Refused(Problem):
    """The request is well formed, but the state of the plane forbids it."""

    code = "FAILED_PRECONDITION"


class Denied(Problem):
    """We know who asks, and they may not."""

    code = "PERMISSION_DENIED"


class Unauthenticated(Problem):
    """We do not know who asks."""

    code = "UNAUTHENTICATED"


class Busy(Problem):
    """A bound is reached; `retry_after` says when to come back."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(Problem):
    """Something we need does not answer; the same call may succeed later."""

    code = "UNAVAILABLE"


def known(found: T | None, kind: str, id_: str, *, field: str = "name") -> T:
    """What was looked up by its id. Raises NotFound with the reason `{KIND}_UNKNOWN` when there is no such thing."""
    if found is None:
        message = f"there is no {kind.replace('_', ' ')} {id_[:80]}"
        problem = NotFound(message, reason=f"{kind.upper()}_UNKNOWN", field=field)
        problem.metadata[kind] = id_[:80]
        raise problem
    return found


def _rebuild(
    kind: type[Problem],
    message: str,
    reason: str,
    field: str,
    retry_after: float | None,
    metadata: dict[str, str],
) -> Problem:
    problem = kind(message, reason=reason, field=field, retry_after=retry_after)
    problem.metadata = metadata
    return problem
