"""Everything the gates look at, read in one statement."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from libs.common import names
from libs.common.database import Transaction
from services.patcher import approvals as heart
from services.patcher.attempt import Attempt, State
from services.patcher.policy import Action, GateInputs, GateRequest, Isolation, Policy, Severity
from services.patcher.store import approvals

READ = """
SELECT
    ARRAY(SELECT scope FROM patcher.kill_switches WHERE engaged) AS engaged,
    (SELECT reason FROM patcher.storms
     WHERE package = :package AND type = :symptom AND end_time IS NULL LIMIT 1) AS storm,
    EXISTS (SELECT 1 FROM patcher.attempts
            WHERE package = :package AND to_release = :release AND configuration = :configuration
              AND action = :action AND state = 'success' AND end_time < :now AND id <> :id) AS proven,
    (SELECT count(*) FROM patcher.slots WHERE package = :package AND holder <> :id) AS in_flight,
    EXISTS (SELECT 1 FROM patcher.slots WHERE holder = :id) AS holds,
    (SELECT count(DISTINCT plugin) FROM patcher.attempts
     WHERE package = :package AND to_release = :release AND configuration = :configuration AND action = :action
       AND plugin <> :plugin AND create_time <= :now AND (end_time IS NULL OR end_time > :now)) AS others,
    coalesce((SELECT plugins FROM patcher.fleets WHERE package = :package), 1) AS fleet,
    ARRAY(SELECT permit_time FROM patcher.attempts
          WHERE plugin = :plugin AND permitted AND id <> :id AND permit_time > :since AND permit_time < :now
          ORDER BY permit_time DESC LIMIT 1001) AS recent_permits
"""
THEN = """
SELECT count(*) AS in_flight FROM patcher.attempts
WHERE package = :package AND id <> :id AND permit_time <= :then AND (end_time IS NULL OR end_time > :then)
"""


async def read(tx: Transaction, policy: Policy, attempt: Attempt, plan: str) -> GateInputs:
    """The situation of an attempt right now; `plan` is the hash of its plan as it is now."""
    row = await tx.first(READ, **_values(policy, attempt), now=tx.now)
    assert row is not None
    found = await approvals.live(tx, names.attempt(attempt.id)) if attempt.plan_hash else None
    seen = _seen(attempt, _request(attempt), row)
    return replace(
        seen,
        now=tx.now,
        engaged=frozenset(row.engaged),
        storm=row.storm or "",
        # A slot that is held already is not asked for again.
        in_flight=0 if row.holds else row.in_flight,
        approved=bool(attempt.rollout) or (found is not None and heart.satisfied(found[0], plan, tx.now)),
    )


async def read_past(tx: Transaction, policy: Policy, attempt: Attempt) -> GateInputs:
    """The situation in which an attempt was begun, as far as rows still tell: the gates of stops and storms open."""
    then = attempt.create_time
    row = await tx.first(READ, **_values(policy, attempt), now=then)
    assert row is not None
    busy = await tx.value(THEN, package=attempt.package, id=attempt.id, then=then)
    ran = attempt.staging if attempt.staging and attempt.staging.ran else None
    request = replace(_request(attempt), staged=ran.passed if ran else None)
    seconds = attempt.staging.seconds if attempt.staging else None
    return replace(_seen(attempt, request, row), now=then, in_flight=int(busy), staging=seconds)


def _values(policy: Policy, attempt: Attempt) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "plugin": attempt.plugin,
        "package": attempt.package,
        "symptom": attempt.symptom,
        "release": attempt.to_release,
        "configuration": attempt.configuration,
        "action": attempt.action.value,
        "since": attempt.create_time - max(policy.attempts_window, timedelta(minutes=1)),
    }


def _seen(attempt: Attempt, request: GateRequest, row: Any) -> GateInputs:
    return GateInputs(
        request=request,
        now=attempt.create_time,
        from_release=attempt.from_release,
        to_release=attempt.to_release,
        # One change that many plugins are about to get at once is one plan that touches many.
        plugins=1 + row.others,
        # The waves of a rollout are its canaries, and its own gate asked the people.
        proven=bool(attempt.rollout) or row.proven,
        named=attempt.named,
        isolation=Isolation.of(attempt.staging.isolation or "none") if attempt.staging else None,
        in_flight=row.in_flight,
        fleet=row.fleet,
        recent_permits=tuple(row.recent_permits),
        approved=bool(attempt.rollout),
    )


def _request(attempt: Attempt) -> GateRequest:
    staged = attempt.staging.passed if attempt.staging else None
    # Before staging is due only its result is missing; from then on it must be good.
    late = attempt.state not in {State.PENDING, State.STAGING}
    due = late and attempt.action is not Action.RESTART and not attempt.other_slot
    # What a rollout brings a person chose: it answers no incident, so there is no severity to cap.
    severity = Severity.LOW if attempt.rollout else attempt.severity
    request = GateRequest(attempt.plugin, attempt.merchant, attempt.action, severity, attempt.confidence, None)
    return replace(request, staged=bool(staged)) if due else request
