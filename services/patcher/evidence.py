"""Evidence: the figures a verdict rests on, and which of them belongs to which type of anomaly.

Rule: every detector has its figure here, so that whatever opens an incident can also speak against a remedy
(`tests/unit/test_evidence.py` compares the lists). A share and a count are tested before against after and
against the control group; a state is read off the plugin; a level is compared with what is usual; and what only its
detector can tell counts when the detector opens an incident about the new generation. What befalls a host speaks
against no remedy.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Probe(enum.StrEnum):
    """What the release's own probe said when it was asked in place."""

    NOT_REQUESTED = ""
    REQUESTED = "asked"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True)
class Sums:
    """Counters over a stretch of beats; `seconds` is how long it lasted."""

    beats: int = 0
    errors: int = 0
    attempts: int = 0
    failures: int = 0
    seconds: float = 0.0
    signature_failures: int = 0

    @property
    def rate(self) -> float:
        """Share of webhook attempts that failed; 0 when there were none."""
        return self.failures / self.attempts if self.attempts else 0.0

    @property
    def lasted(self) -> float:
        """Seconds; one beat is taken as at least a second."""
        return max(self.seconds, float(self.beats))

    @property
    def errors_per_minute(self) -> float:
        """How fast errors come."""
        return self.errors / max(self.lasted, 1.0) * 60.0


@dataclass(frozen=True)
class Level:
    """A named number beside what is usual of it; `spread` is the standard deviation of its logarithm."""

    name: str
    usual: float
    present: float
    spread: float


class Kind(enum.Enum):
    """How a figure speaks."""

    SHARE = "share"
    COUNT = "count"
    STATE = "state"
    LEVEL = "level"
    FINDING = "finding"
    HOST = "host"


@dataclass(frozen=True)
class Figure:
    """How the figure of one type of anomaly is judged.

    `events` names the counter; `called` says in words what is counted, or what a state or a finding is about.
    """

    kind: Kind
    called: str
    events: str = ""


FIGURES: Mapping[str, Figure] = {
    "heartbeat_missed": Figure(Kind.STATE, "silence"),
    "plugin_down": Figure(Kind.STATE, "health"),
    "webhook_fail_rate": Figure(Kind.SHARE, "webhooks fail", "failures"),
    "error_spike": Figure(Kind.COUNT, "errors", "errors"),
    "signature_invalid": Figure(Kind.COUNT, "rejected signatures", "signature_failures"),
    "config_drift": Figure(Kind.FINDING, "another configuration than it should have"),
    "telemetry_anomaly": Figure(Kind.LEVEL, "latencies and other levels"),
    "version_incompatibility": Figure(Kind.HOST, "requirements that its host does not meet"),
    "plugin_away": Figure(Kind.STATE, "silence"),
    "agent_degraded": Figure(Kind.HOST, "an agent that its host hinders"),
}
# What a detector opens about the new generation and no test of its own looks at; so does every type unknown here.
BY_FINDING = frozenset({Kind.FINDING, Kind.LEVEL})


@dataclass(frozen=True)
class Evidence:
    """Everything a verdict is made of. `silent` is seconds since the generation's last beat, or since the switch.

    `findings`: types of incidents that were opened about the new generation. `drifts`: it reports another
    configuration than the remedy brought.
    """

    before: Sums
    after: Sums
    control: Sums
    symptom: str
    health: str = "healthy"
    silent: float = 0.0
    probe: Probe = Probe.NOT_REQUESTED
    last_call: bool = False
    findings: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()
    drifts: bool = False


@dataclass(frozen=True)
class Rules:
    """The bounds of a verdict: beats needed, highest failure rate (0 to 1), longest silence (seconds).

    `alpha`: how often a good remedy may be called bad, and a bad one good, over all looks together.
    """

    beats: int = 5
    threshold: float = 0.10
    silence: float = 120.0
    alpha: float = 0.01

    @property
    def ceiling(self) -> float:
        """The failure rate that a full pass has evidence against: three times the highest, or half-way to all."""
        return min(3.0 * self.threshold, (1.0 + self.threshold) / 2.0)
