"""The look at a pair (package, type) within the transaction that opens an incident of it.

Rule: whoever opens an incident looks whether it makes a storm; while one is ongoing nobody looks again, its end is the
sweep's or an operator's.
"""

from __future__ import annotations

from collections.abc import Iterable

from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.telemetry import counter, new_traceparent
from prunella.v1.events_pb2 import Event
from services.ingest import storm
from services.ingest.store import storms as store
from services.ingest.store.storms import StoredStorm
from services.ingest.storm import Rules, State, Storm
from services.ingest.wire import storms as wire

STORMS = counter("storms_total", "Storms that began, by type", ("type",))


async def begin(tx: Transaction, pairs: Iterable[tuple[str, str]], rules: Rules) -> list[tuple[Event, str]]:
    """Begins the storms that the newest openings of these pairs make; their facts with their traces."""
    facts: list[tuple[Event, str]] = []
    for package, type_ in sorted(set(pairs)):
        await store.lock(tx, package, type_)
        known = await store.latest(tx, package, type_)
        pair = known.storm if known else Storm(package, type_)
        if pair.state is State.ONGOING:
            continue
        counts = await store.counts(tx, pair, tx.now, rules)
        after = storm.advance(pair, counts, tx.now, rules)
        if after.event is None:
            continue
        row = StoredStorm(new_id(tx.now), after.storm, after.storm.peak, counts.fleet, after.reason, new_traceparent())
        await store.insert(tx, row)
        tx.after_commit(STORMS.labels(type_).inc)
        facts.append((wire.fact_of(row, after), row.traceparent))
    return facts


async def ongoing_unlocked(tx: Transaction, package: str, type_: str) -> str:
    """The ongoing storm of a pair as it stands, for whoever will look at the pair under its lock later on."""
    known = await store.latest(tx, package, type_)
    return known.id if known and known.storm.state is State.ONGOING else ""


async def ongoing(tx: Transaction, package: str, type_: str) -> str:
    """The ongoing storm of a pair, which stays locked until the commit; empty when there is none."""
    await store.lock(tx, package, type_)
    known = await store.latest(tx, package, type_)
    return known.id if known and known.storm.state is State.ONGOING else ""
