"""Storms as resources and as facts."""

from __future__ import annotations

from libs.common import names
from libs.common.facts import fact
from prunella.v1 import events_pb2, ingest_pb2
from prunella.v1.events_pb2 import Event
from services.ingest.store.storms import StoredStorm
from services.ingest.storm import StormEvent, Transition
from services.ingest.wire.timestamps import stamp

SOURCE = "ingest"


def resource(row: StoredStorm) -> ingest_pb2.Storm:
    """A storm as callers see it."""
    storm = row.storm
    return ingest_pb2.Storm(
        name=names.storm(row.id),
        package=storm.package,
        type=storm.type,
        state=str(storm.state),
        plugins=row.plugins,
        fleet=row.fleet,
        start_time=stamp(storm.start_time),
        end_time=stamp(storm.end_time),
        reason=row.end_reason or row.reason,
    )


def fact_of(row: StoredStorm, after: Transition) -> Event:
    """The fact of a transition."""
    storm = row.storm
    if after.event is StormEvent.STARTED:
        started = events_pb2.StormStarted(
            storm=row.id, package=storm.package, type=storm.type, plugins=row.plugins, fleet=row.fleet
        )
        return fact(SOURCE, started, reason=after.reason)
    ended = events_pb2.StormEnded(
        storm=row.id, package=storm.package, type=storm.type, by_operator=bool(storm.ended_by)
    )
    return fact(SOURCE, ended, actor=after.actor, reason=after.reason)
