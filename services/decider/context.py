"""What every door of the decider holds, and the one step they share: load, ask the heart, save with its fact.

Rule: a decision that nobody is sure of asks SIRA first, as an errand with a deadline, when there is a SIRA and its
breaker lets a call through; otherwise it is made at once. Before acting the doors ask ingest whether the incident
still stands in the same round, so that a late or repeated fact is harmless.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from libs.common import names
from libs.common.bus import fact
from libs.common.clock import Clock
from libs.common.database import Transaction
from libs.common.errands import send
from libs.common.errors import NotFound, Problem
from libs.common.runtime.assembly import SharedContext
from libs.common.settings import HttpUrl, ServiceSettings, variable
from libs.common.telemetry import counter, current_traceparent
from prunella.v1 import ingest_pb2, ingest_pb2_grpc, patcher_pb2, patcher_pb2_grpc
from prunella.v1.events_pb2 import Event
from services.decider import wire
from services.decider.choice import VERSION, choose
from services.decider.decision import FOR_PEOPLE, Choice, Decision, DecisionInputs, Opinion, State
from services.decider.errands.sira import Sira, request_body
from services.decider.features import features
from services.decider.playbook import Playbook
from services.decider.store import decisions, learning

SCHEMA = "decider"
ASK_SIRA = "ask_sira"
INGEST_TIMEOUT = 5.0
# Seconds the policy is held, and what asking for it may take.
POLICY_MAX_AGE = 10.0
POLICY_TIMEOUT = 0.5
# Seconds SIRA's answer may still take to be stored before the sweep decides without it.
STORE_SECONDS = 5.0
# An incident that is neither of these has ended, or belongs to a person.
STANDING = frozenset({"open", "in_progress"})

_decisions = counter("decisions_total", "Decisions made", ("origin", "action"))


class Settings(ServiceSettings):
    """The decider's own variables."""

    sira_url: HttpUrl = variable(
        "SIRA_API_URL",
        default="",
        rule="where the external SIRA answers POST /api/sira/decide; empty for none",
        remedy="for example https://sira.example.com",
    )
    sira_token: str = variable(
        "SIRA_API_TOKEN", default="", rule="bearer token for SIRA", remedy="ask its operator", secret=True
    )
    sira_timeout: float = variable(
        "SIRA_TIMEOUT_SECONDS",
        default=10.0,
        rule="seconds SIRA may take in all, above 0 and at most 60",
        gt=0,
        le=60,
    )
    playbook: Path = variable(
        "DECIDER_PLAYBOOK",
        default=Path(__file__).with_name("playbook.toml"),
        rule="file with the known remedies (TOML)",
        remedy="leave it out for the one that comes along",
    )


@dataclass
class CurrentPolicy:
    """The policy in force, as far as deciding needs it; patcher owns it, and nothing waits long for it."""

    patcher: patcher_pb2_grpc.PatcherServiceAsyncStub | None
    clock: Clock
    version: str = "unknown"
    # Whether outcomes may teach; they are saved either way.
    learning: bool = True
    _refresh_time: float = -math.inf

    async def refresh(self, max_age: float = POLICY_MAX_AGE) -> None:
        """Asks patcher, unless that was tried in the last `max_age` seconds; without an answer the last known stays."""
        now = self.clock.monotonic()
        if self.patcher is None or now < self._refresh_time + max_age:
            return
        self._refresh_time = now
        try:
            answer = await self.patcher.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=POLICY_TIMEOUT)
        except Problem:
            return
        self.version = str(answer.policy.version)
        self.learning = answer.policy.learning_enabled


@dataclass
class ServiceContext(SharedContext):
    """The decider's database, bus, time, playbook and clients."""

    settings: Settings
    playbook: Playbook
    ingest: ingest_pb2_grpc.IngestServiceAsyncStub
    policy: CurrentPolicy
    sira: Sira | None = None


async def still_open(ctx: ServiceContext, incident: str, number: int) -> bool:
    """Whether an incident is open in this round. Raises Unavailable when ingest does not answer."""
    request = ingest_pb2.GetIncidentRequest(name=names.incident(incident))
    try:
        found = (await ctx.ingest.GetIncident(request, timeout=INGEST_TIMEOUT)).incident
    except NotFound:
        return False
    return found.state in STANDING and found.round == number


async def consider(
    tx: Transaction, ctx: ServiceContext, inputs: DecisionInputs, seed: str, opinion: Opinion | None
) -> Choice:
    """Loads what was learned and asks the heart; chance comes from `seed`, so that the same seed chooses the same."""
    learned = await learning.outcomes_by_remedy(tx, inputs.package, inputs.symptom, inputs.release)
    rng = random.Random(seed)  # noqa: S311 - explores, guards nothing
    return choose(inputs, ctx.playbook, learned, opinion=opinion, rng=rng)


async def decide(tx: Transaction, ctx: ServiceContext, event: Event, inputs: DecisionInputs, decision: str) -> None:
    """Decides on a round under the id `decision`, or asks SIRA first; does nothing when the round has a decision."""
    choice = await consider(tx, ctx, inputs, decision, None)
    sira = None
    if not choice.confident and inputs.symptom not in FOR_PEOPLE and ctx.sira and ctx.sira.available():
        sira = ctx.sira
    made = Decision(
        id=decision,
        incident=event.incident,
        plugin=event.plugin,
        merchant=event.merchant,
        state=State.PENDING if sira else State.MADE,
        inputs=inputs,
        choice=choice,
        versions=versions(ctx, None),
        features=features(inputs, decision),
        cause=event.id,
        traceparent=current_traceparent(),
        create_time=tx.now,
        decide_time=None if sira else tx.now,
        deadline_time=tx.now + timedelta(seconds=sira.timeout + STORE_SECONDS) if sira else None,
    )
    await decisions.supersede_rounds(tx, event.incident, inputs.round)
    if not await decisions.insert(tx, made):
        return
    if not sira:
        record_decision(tx, made)
        return
    history = await decisions.history(tx, event.plugin)
    payload = {
        "incident": event.incident,
        "round": inputs.round,
        "body": request_body(event.merchant, event.plugin, inputs, history),
    }
    await send(tx, SCHEMA, ASK_SIRA, decision, payload, key=f"{ASK_SIRA}/{decision}", database=ctx.database)


async def conclude(tx: Transaction, ctx: ServiceContext, decision: str, opinion: Opinion | None, note: str) -> bool:
    """Makes a pending decision with SIRA's opinion or without; `note` says how that went. False when not pending."""
    pending = await decisions.lock_pending(tx, decision)
    if pending is None:
        return False
    made = replace(
        pending,
        state=State.MADE,
        choice=await consider(tx, ctx, pending.inputs, decision, opinion),
        versions=versions(ctx, opinion),
        features=pending.features | {"sira": note},
        decide_time=tx.now,
    )
    await decisions.conclude(tx, made)
    record_decision(tx, made)
    return True


def record_decision(tx: Transaction, made: Decision) -> None:
    """Records decision_made in the transaction of the decision."""
    chosen = made.choice.chosen
    tx.after_commit(_decisions.labels(chosen.origin.value, chosen.remedy.action).inc)
    tx.record(
        fact(
            SCHEMA,
            wire.decision_made(made),
            reason=made.choice.explanation,
            plugin=made.plugin,
            merchant=made.merchant,
            incident=made.incident,
            cause=Event(id=made.cause),
        )
    )


def versions(ctx: ServiceContext, opinion: Opinion | None) -> dict[str, str]:
    """What the choice was made by."""
    model = {"sira": opinion.model} if opinion and opinion.model else {}
    return {"playbook": ctx.playbook.version, "choice": VERSION, "policy": ctx.policy.version, **model}
