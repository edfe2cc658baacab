"""What every door of ingest is given, and the step they share: an incident that moved is saved with its facts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.runtime.assembly import SharedContext
from libs.common.settings import ServiceSettings, variable
from prunella.v1 import patcher_pb2_grpc
from prunella.v1.events_pb2 import Event
from services.ingest import reopening
from services.ingest.detectors import BITS
from services.ingest.incident import Incident, Transition
from services.ingest.observation import Limits
from services.ingest.store import incidents, plugin_state
from services.ingest.storm import Rules
from services.ingest.wire import incidents as wire

if TYPE_CHECKING:
    from services.ingest.gateway.committer import Committer
    from services.ingest.gateway.error_forwarding import ErrorForwarder
    from services.ingest.gateway.identity import Identities
    from services.ingest.gateway.sessions import Sessions

SCHEMA = "ingest"


def _seconds(name: str, default: float, rule: str, **bounds: Any) -> float:
    found: float = variable(name, default=default, rule=f"{rule}, in seconds", **bounds)
    return found


def _count(name: str, default: int, rule: str, most: int = 1000) -> int:
    found: int = variable(name, default=default, rule=rule, ge=1, le=most)
    return found


class Settings(ServiceSettings):
    """Ingest's own variables."""

    beat: float = _seconds("INGEST_BEAT_SECONDS", 30.0, "how often an agent on a stream beats", gt=0, le=3600)
    probation_beat: float = _seconds(
        "INGEST_PROBATION_BEAT_SECONDS", 1.0, "how often it beats in probation", gt=0, le=60
    )
    poll: float = _seconds("INGEST_POLL_SECONDS", 120.0, "how often an agent without a stream beats", gt=0, le=86400)
    silence: float = _seconds("INGEST_SILENCE_SECONDS", 90.0, "silence on a stream that is an anomaly", gt=0, le=86400)
    away: float = _seconds(
        "INGEST_AWAY_SECONDS", 600.0, "absence after a goodbye that named no time, which is missed", gt=0, le=604800
    )
    act_by: float = _seconds("INGEST_ACT_BY_SECONDS", 900.0, "time automation has for an incident", gt=0, le=86400)
    healthy_windows: int = _count("INGEST_HEALTHY_WINDOWS", 5, "healthy windows in a row that close an incident")
    rounds: int = _count("INGEST_ROUNDS", 3, "remedies tried before an operator is asked")
    reopen: float = _seconds(
        "INGEST_REOPEN_SECONDS", 1800.0, "after its end in which an incident goes on when it comes back", ge=0, le=86400
    )
    flapping: int = _count("INGEST_FLAPPING_REOPENINGS", 3, "times it comes back until it is flapping")
    storm_share: int = _count("INGEST_STORM_PERCENT", 10, "more of a package's plugins than this make a storm", 100)
    storm_least: int = _count("INGEST_STORM_LEAST", 5, "the fewest plugins that make a storm", 10_000_000)
    storm_window: float = _seconds("INGEST_STORM_SECONDS", 300.0, "within which their incidents open", gt=0, le=86400)
    storm_cooldown: float = _seconds(
        "INGEST_STORM_COOLDOWN_SECONDS", 600.0, "below half of what began it that ends a storm", gt=0, le=86400
    )
    late_beat: float = _seconds(
        "INGEST_LATE_BEAT_SECONDS", 60.0, "how long a beat of a former boot may be on its way", gt=0, le=3600
    )
    rate_reports: int = _count("INGEST_RATE_REPORTS", 3, "bare webhook_fail_rates in a row that are evidence", 20)
    release_keys: str = variable(
        "INGEST_RELEASE_KEYS",
        default="",
        rule="two hex Ed25519 public keys, separated by a comma, that agents pin",
        remedy="use the value of PATCHER_RELEASE_KEYS",
        pattern=r"^$|^[0-9a-f]{64},[0-9a-f]{64}$",
    )

    def limits(self) -> Limits:
        """What beats are judged by."""
        return Limits(self.late_beat, self.rate_reports)

    def reopening(self) -> reopening.Rules:
        """When an incident that comes back goes on, and when it is flapping."""
        within, act_within = timedelta(seconds=self.reopen), timedelta(seconds=self.act_by)
        return reopening.Rules(within, self.flapping, self.rounds, act_within)

    def storm(self) -> Rules:
        """When a storm begins and ends."""
        return Rules(
            self.storm_share,
            self.storm_least,
            timedelta(seconds=self.storm_window),
            timedelta(seconds=self.storm_cooldown),
        )

    def keys(self) -> list[bytes]:
        """The keys agents pin at enrolment."""
        return [bytes.fromhex(key) for key in self.release_keys.split(",") if key]


@dataclass
class ServiceContext(SharedContext):
    """Ingest's database, bus, time, clients, and what it has in memory: beats to commit, sessions, identities, error
    reports."""

    settings: Settings
    patcher: patcher_pb2_grpc.PatcherServiceAsyncStub
    replica: str = field(default_factory=new_id)
    committer: Committer = field(init=False)
    sessions: Sessions = field(init=False)
    identities: Identities = field(init=False)
    error_forwarder: ErrorForwarder = field(init=False)


async def save_transition(
    tx: Transaction, before: Incident, after: Transition, *, actor: str = "", cause: Event | None = None
) -> bool:
    """Saves an incident that moved with its facts, and has windows count anew when it ended; False if it stood."""
    incident = after.incident
    if incident == before:
        return False
    await incidents.save(tx, incident)
    for event in wire.facts(after, actor=actor, cause=cause):
        tx.record(event)
    if before.ill and not incident.ill:
        await plugin_state.ended(tx, incident.plugin, BITS.get(incident.type, 0))
    return True


async def lock_incident(tx: Transaction, incident: str, plugin: str) -> Incident | None:
    """An incident and its plugin's state, locked in the order in which beats lock them."""
    if plugin and not await plugin_state.lock(tx, plugin):
        return None
    return await incidents.lock(tx, incident)
