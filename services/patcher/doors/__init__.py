"""What every door of the patcher holds, and the step they share: load, ask the heart, save with facts and errands.

Rule: an attempt changes only here, under its row's lock, in the transaction that also tells its facts, writes its
history and sends its errands. Gates are asked again each time an attempt wants to go on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from libs.common import names
from libs.common.bus import Bus
from libs.common.clock import Clock
from libs.common.database import Database, Transaction
from libs.common.errands import send
from libs.common.errors import Invalid, NotFound
from libs.common.settings import HttpUrl, ServiceSettings, variable
from libs.common.telemetry import Telemetry, counter
from prunella.v1 import ingest_pb2, ingest_pb2_grpc
from prunella.v1.events_pb2 import Event
from services.patcher import attempt as heart
from services.patcher import wire
from services.patcher.attempt import FINAL, Attempt, Bounds, Change, Gated, Observation
from services.patcher.policy import PLUGIN_BUSY, Action, Answer, Hold, Policy, Refuse, Wish, gate
from services.patcher.staging import Runner
from services.patcher.store import attempts, kill_switches
from services.patcher.store import policy as policies

SCHEMA = "patcher"
QUESTION_TIMEOUT = 5.0
# An incident that is neither of these has ended, or belongs to a person.
STANDING = frozenset({"open", "in_progress"})
ENDED = counter("attempts_ended_total", "Attempts that reached a final state", ("state",))


class Settings(ServiceSettings):
    """The patcher's own variables."""

    staging_url: HttpUrl = variable(
        "STAGING_RUNNER_URL",
        default="",
        rule="where a staging runner answers POST /run; empty for the sandbox on this machine",
        remedy="for example https://staging.example.com",
    )
    staging_token: str = variable(
        "STAGING_RUNNER_TOKEN",
        default="",
        rule="bearer token for the staging runner",
        remedy="ask its operator",
        secret=True,
    )
    dead_man: float = variable(
        "PATCHER_DEAD_MAN_SECONDS",
        default=60.0,
        rule="seconds after a switch at which an agent without a commit reverts by itself, 3 to 3600",
        remedy="leave it out for 60",
        ge=3,
        le=3600,
    )
    release_keys: str = variable(
        "PATCHER_RELEASE_KEYS",
        default="",
        rule="two hexadecimal Ed25519 public keys that sign releases, separated by a comma",
        remedy="give the same two keys as INGEST_RELEASE_KEYS",
    )
    probation_beats: int = variable(
        "PATCHER_PROBATION_BEATS",
        default=5,
        rule="beats of a new generation a verdict needs, 1 to 1000",
        remedy="leave it out for 5",
        ge=1,
        le=1000,
    )


def pinned_keys(text: str) -> tuple[bytes, ...]:
    """The raw keys in PATCHER_RELEASE_KEYS; none when it is empty. Raises Invalid."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        keys = tuple(bytes.fromhex(word) for word in words)
    except ValueError:
        keys = ()
    if words and (len(set(keys)) != 2 or any(len(key) != 32 for key in keys)):
        raise Invalid(
            "PATCHER_RELEASE_KEYS must hold two different keys of 64 hexadecimal digits, separated by a comma",
            reason="RELEASE_KEYS",
            field="PATCHER_RELEASE_KEYS",
        )
    return keys


@dataclass
class Doors:
    """The patcher's database, bus, time, pinned keys, staging runner and clients."""

    database: Database
    bus: Bus
    clock: Clock
    telemetry: Telemetry
    settings: Settings
    keys: tuple[bytes, ...]
    runner: Runner
    ingest: ingest_pb2_grpc.IngestServiceAsyncStub
    _proving: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def proving(self, what: tuple[str, ...]) -> asyncio.Lock:
        """The lock under which one artifact is proven against one suite; who comes later finds the result."""
        return self._proving.setdefault(what, asyncio.Lock())


async def stands(doors: Doors, incident: str, number: int) -> bool:
    """Whether an incident is still in this round and nobody else has taken over. Raises Unavailable."""
    request = ingest_pb2.GetIncidentRequest(name=names.incident(incident))
    try:
        found = (await doors.ingest.GetIncident(request, timeout=QUESTION_TIMEOUT)).incident
    except NotFound:
        return False
    return found.state in STANDING and found.round == number


async def plugin_of(doors: Doors, plugin: str) -> ingest_pb2.Plugin | None:
    """The plugin as ingest knows it, None when it does not. Raises Unavailable."""
    request = ingest_pb2.GetPluginRequest(name=names.plugin(plugin))
    try:
        return (await doors.ingest.GetPlugin(request, timeout=QUESTION_TIMEOUT)).plugin
    except NotFound:
        return None


def bounds(settings: Settings, policy: Policy) -> Bounds:
    """The times of an attempt that begins now."""
    return Bounds(
        dead_man=settings.dead_man,
        staging_timeout=policy.staging_timeout.total_seconds(),
        health_timeout=policy.health_check_timeout.total_seconds(),
    )


async def answer(tx: Transaction, attempt: Attempt, *, lock: bool = True) -> tuple[Answer, Policy]:
    """What the gates say about an attempt right now; a plugin that another attempt has is one of them."""
    policy, _ = await policies.get(tx)
    staged = attempt.staging.passed if attempt.staging else None
    # Before staging is due only its result is missing; from then on it must be good.
    due = attempt.state is heart.State.STAGED and attempt.action is not Action.RESTART and not attempt.other_slot
    wish = Wish(
        attempt.plugin,
        attempt.merchant,
        attempt.action,
        attempt.severity,
        attempt.confidence,
        bool(staged) if due else None,
    )
    found = gate(policy, await kill_switches.engaged(tx), wish)
    other = await attempts.busy(tx, attempt.plugin, attempt.id, lock=lock)
    if other is not None and not isinstance(found, Refuse):
        return Hold(PLUGIN_BUSY, f"attempt {other.id} has the plugin"), policy
    return found, policy


async def keep(tx: Transaction, doors: Doors, change: Change, cause: Event | None, *, new: bool = False) -> None:
    """Saves a change with its history, facts and errands."""
    if new:
        await attempts.insert(tx, change)
    else:
        await attempts.save(tx, change)
    await _tell(tx, doors, change, cause)


async def _tell(tx: Transaction, doors: Doors, change: Change, cause: Event | None) -> None:
    for told in change.facts:
        tx.record(wire.event(told, change.attempt, cause))
    for errand in change.errands:
        await send(tx, SCHEMA, errand.kind, change.attempt.id, errand.payload, key=errand.key, database=doors.database)
    if change.steps and change.attempt.state in FINAL:
        state = change.attempt.state.value
        tx.after_commit(lambda: ENDED.labels(state).inc())


async def observe(
    tx: Transaction, doors: Doors, attempt: str, observation: Observation, *, cause: Event | None = None
) -> Attempt | None:
    """Tells an attempt what was observed and saves what follows; None when there is no such attempt."""
    found = await attempts.get(tx, attempt, lock=True)
    if found is None:
        return None
    change = heart.next(found, observation, tx.now)
    if change.attempt != found or change.steps:
        await keep(tx, doors, change, cause)
    else:
        await _tell(tx, doors, change, cause)
    return change.attempt


async def go_on(tx: Transaction, doors: Doors, attempt: str, *, cause: Event | None = None) -> Attempt | None:
    """Asks the gates and lets the attempt go on, wait or end."""
    found = await attempts.get(tx, attempt, lock=True)
    if found is None or found.state not in {heart.State.PENDING, heart.State.STAGED}:
        return found
    said, policy = await answer(tx, found)
    return await observe(tx, doors, attempt, Gated(said, needs_staging(policy, found)), cause=cause)


def needs_staging(policy: Policy, attempt: Attempt) -> bool:
    """Whether the sandbox has to prove something first."""
    return policy.require_staging and attempt.action is not Action.RESTART and not attempt.other_slot
