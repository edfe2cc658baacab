"""Stories an attempt may be in the middle of, for the tests of its machine."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.patcher import attempt as heart
from services.patcher.attempt import (
    Attempt,
    AttemptEvent,
    Bounds,
    Change,
    CommandFinished,
    CommandIssued,
    DeadlinePassed,
    ErrandKind,
    GatesEvaluated,
    Observation,
    Outcome,
    Permitted,
    Purpose,
    Staged,
    StagingFinished,
    VerdictReached,
)
from services.patcher.policy import Action, Allow, Hold, Severity
from services.patcher.verdict import Result, Verdict

START = datetime(2026, 1, 1, tzinfo=UTC)
NEW = Attempt(
    id="a1", incident="i1", decision="d1", plugin="p1", merchant="m1", package="checkout", action=Action.PATCH,
    from_release="1.2.0", to_release="1.2.3", digest="f" * 64, severity=Severity.MEDIUM, symptom="webhook_fail_rate",
    round=1, confidence=0.87, bounds=Bounds(dead_man=60), create_time=START, update_time=START, deadline_time=START,
    from_generation=3,
)  # fmt: skip
ALLOWED = GatesEvaluated(Allow(), needs_staging=True)
PASSED = StagingFinished(Staged(True, 6, 6, 1.0))
PASS = VerdictReached(Verdict(Result.PASS, "healed"))
FAIL = VerdictReached(Verdict(Result.FAIL, "worse"))
UNSURE = VerdictReached(Verdict(Result.INSUFFICIENT, "few beats"))
HELD = GatesEvaluated(Hold("KILL_SWITCH", "stopped"), needs_staging=True)


def word(
    outcome: Outcome,
    kind: str = "update",
    *,
    generation: int = 4,
    fence: int = 7,
    detail: str = "",
    unsolicited: bool = False,
) -> CommandFinished:
    return CommandFinished("c1", kind, generation, fence, outcome, detail, START, unsolicited)


class Story:
    """An attempt with everything that followed from what it saw."""

    def __init__(self, attempt: Attempt = NEW) -> None:
        self.change = Change(attempt)
        self.now = START

    def sees(self, *observations: Observation, after: float = 0.0) -> "Story":
        self.now += timedelta(seconds=after)
        for observation in observations:
            self.change = self.change.then(heart.next(self.change.attempt, observation, self.now))
        return self

    @property
    def attempt(self) -> Attempt:
        return self.change.attempt

    @property
    def events(self) -> list[AttemptEvent]:
        return [fact.event for fact in self.change.facts]

    def errands(self, kind: ErrandKind) -> list[dict[str, object]]:
        return [errand.payload for errand in self.change.errands if errand.kind is kind]


ISSUED = CommandIssued(Purpose.SWITCH, 1, "c1", 4, 7)
PERMITTED = Permitted("c1", 4, 7)


def applying() -> Story:
    return Story().sees(ALLOWED, PASSED, ALLOWED, ISSUED)


def permitted() -> Story:
    return applying().sees(PERMITTED)


def probation() -> Story:
    return permitted().sees(word(Outcome.APPLIED))


def committing() -> Story:
    return probation().sees(PASS, after=6)


def rolling_back() -> Story:
    return probation().sees(FAIL, after=3)


def unconfirmed() -> Story:
    return committing().sees(DeadlinePassed(), after=100)


OTHER_SLOT = replace(NEW, action=Action.ROLLBACK, to_release="", digest="")


def gone_back() -> Story:
    """The agent went back to its other slot, for lack of a known release."""
    story = Story(OTHER_SLOT).sees(GatesEvaluated(Allow(), needs_staging=False))
    assert [(p["kind"], p["generation"]) for p in story.errands(ErrandKind.ISSUE_COMMAND)] == [("rollback", 3)]
    story.sees(CommandIssued(Purpose.SWITCH, 1, "c1", 3, 7))
    return story.sees(word(Outcome.REVERTED, "rollback", generation=3))
