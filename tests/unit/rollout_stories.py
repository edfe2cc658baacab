"""A rollout with the door around it: its members' rows, and wants carried out as the patcher would."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from services.patcher import rollout as heart
from services.patcher.rollout import (
    TOUCHED,
    Approved,
    Assignment,
    Bounds,
    CancelUnpermitted,
    Change,
    Fact,
    Member,
    MemberState,
    NotSwitched,
    Observation,
    Outcome,
    RollBack,
    Rollout,
    RolloutEvent,
    Rules,
    Settled,
    Started,
    StartMembers,
    State,
    Switched,
    Transition,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
IN_FLIGHT = {MemberState.STARTED, MemberState.SWITCHED}


def places(*sizes: int, offline: int = 0) -> list[Assignment]:
    """Plugins p1, p2, … in waves of these sizes; those that are offline come last."""
    waves = [wave for wave, size in enumerate(sizes, 1) for _ in range(size)] + [len(sizes)] * offline
    online = sum(sizes)
    return [
        Assignment(f"p{start_order}", wave, start_order, start_order <= online)
        for start_order, wave in enumerate(waves, 1)
    ]


class Story:
    """What happened to one rollout so far. Every change is checked against the rows."""

    def __init__(
        self,
        *sizes: int,
        offline: int = 0,
        budget: int = 16,
        bounds: Bounds | None = None,
        rules: Rules | None = None,
        allowed: bool = True,
    ) -> None:
        self.now = START
        change, members = heart.create(
            "r1", "checkout", "1.2.3", places(*sizes, offline=offline), START, budget=budget, bounds=bounds, rules=rules
        )
        self.rollout: Rollout = change.rollout
        self.rows: dict[str, Member] = {member.plugin: member for member in members}
        self.facts: list[Fact] = list(change.facts)
        self.effects: list[object] = []
        self.transitions: list[Transition] = []
        self.highest = 0
        if allowed:
            self.sees(Approved())

    def sees(self, observation: Observation, after: timedelta = timedelta()) -> Story:
        """The observation, and everything it gives rise to."""
        self.now += after
        self._save(heart.next(self.rollout, observation, self.now))
        return self

    def _save(self, change: Change) -> None:
        self.rollout = change.rollout
        self.facts += change.facts
        self.effects += change.effects
        self.transitions += change.transitions
        if change.member is not None:
            self.rows[change.member.plugin] = change.member
        for want in change.effects:
            if isinstance(want, RollBack):
                self._take_back(want)
        self._agrees()
        for want in change.effects:
            if isinstance(want, StartMembers):
                self._start(want)
            elif isinstance(want, CancelUnpermitted):
                for row in [row for row in self.rows.values() if row.state is MemberState.STARTED]:
                    self.sees(NotSwitched(row, want.reason, retry=True))

    def _start(self, want: StartMembers) -> None:
        waiting = [row for row in self.rows.values() if row.state is MemberState.WAITING and row.wave <= want.wave]
        for row in sorted(waiting, key=lambda row: (row.wave, int(row.plugin[1:])))[: want.most]:
            change = heart.next(self.rollout, Started(row), self.now)
            self.rollout = change.rollout
            assert change.member is not None
            self.rows[row.plugin] = change.member
        self._agrees()

    def _take_back(self, want: RollBack) -> None:
        for plugin, row in self.rows.items():
            if want.first <= row.wave <= want.last and row.state in TOUCHED:
                self.rows[plugin] = Member(
                    row.plugin, row.wave, MemberState.ROLLING_BACK, row.switch_number, row.counted_against
                )

    def _agrees(self) -> None:
        for number, tally in enumerate(self.rollout.tallies, 1):
            rows = Counter(row.state for row in self.rows.values() if row.wave == number)
            assert dict(tally.counts) == dict(rows), (number, self.rollout.state)
            assert all(1 <= switch_number <= tally.exposed for switch_number in tally.broken)
        flying = sum(row.state in IN_FLIGHT for row in self.rows.values())
        self.highest = max(self.highest, flying)

    def state(self) -> State:
        """Where the rollout stands by now."""
        return self.rollout.state

    def flying(self) -> list[Member]:
        """The rows in flight, in the order of their ranks."""
        return sorted((r for r in self.rows.values() if r.state in IN_FLIGHT), key=lambda r: int(r.plugin[1:]))

    def settles(self, *outcomes: Outcome) -> Story:
        """The next in flight are switched and have these results, one after another."""
        for outcome in outcomes:
            row = self.flying()[0]
            self.sees(Switched(row))
            self.sees(Settled(self.rows[row.plugin], outcome))
        return self

    def heals(self) -> Story:
        """Everything in the current wave turns out healthy."""
        while self.rollout.state is State.RUNNING and self.flying():
            self.settles(Outcome.HEALTHY)
        return self

    def soaks(self) -> Story:
        """The soak time passes."""
        assert self.rollout.state is State.SOAKING, self.rollout.reason
        return self.sees(heart.Tick(), after=self.rollout.bounds.soak)

    @property
    def events(self) -> list[RolloutEvent]:
        """What was told, in order."""
        return [fact.event for fact in self.facts]

    def states(self) -> Counter[MemberState]:
        """The rows by state."""
        return Counter(row.state for row in self.rows.values())
