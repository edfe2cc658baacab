"""The one shape of every detector, and the levels that several of them go by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.ingest.finding import Finding, Severity
from services.ingest.observation import Observation


@dataclass(frozen=True, slots=True)
class Detector:
    """Finds anomalies of one type in observations.

    `due` says whether it has to look at this beat, `judge` what it finds. `well` is asked while an incident of its type
    is open and nothing was found: whether the beat speaks for (True) or against (False) being healed; None: neither.
    `from_bursts`: whether a beat of a burst may speak for it, because the detector goes by more than this window.
    """

    type: str
    # In `PluginState.open_types`: never changed, and never used for another type.
    bit: int
    due: Callable[[Observation], bool]
    judge: Callable[[Observation], Finding | None]
    well: Callable[[Observation], bool | None]
    from_bursts: bool = False


@dataclass(frozen=True, slots=True)
class Levels:
    """From which figure on (exclusive) a finding has which severity, mildest first."""

    over: tuple[tuple[float, Severity], ...]

    def severity(self, figure: float) -> Severity | None:
        """The severity of a figure, None below every level."""
        found = None
        for threshold, severity in self.over:
            if figure > threshold:
                found = severity
        return found

    def finding(self, type_: str, figure: str, value: float, summary: str) -> Finding | None:
        """What to say of this value of a figure; None below every level."""
        severity = self.severity(value)
        return None if severity is None else Finding(type_, severity, summary, ((figure, value),))

    @property
    def first(self) -> float:
        """The figure above which there is an anomaly at all."""
        return self.over[0][0]


def eventful(seen: Observation) -> bool:
    """When thresholds are due: the window, or what came shortly before it, may hold something."""
    return seen.eventful
