"""Storms as resources and as facts."""

from __future__ import annotations

from libs.common import names
from libs.common.facts import fact
from prunella.v1 import events_pb2, ingest_pb2
from prunella.v1.events_pb2 import Event
from services.ingest.store.storms import Row
from services.ingest.storm import State, Step, Told
from services.ingest.wire.moments import stamp

SOURCE = "ingest"
# As people call the states.
STATES = {"raging": State.STORM, "over": State.CALM}
WORDS = {state: word for word, state in STATES.items()}


def resource(row: Row) -> ingest_pb2.Storm:
    """A storm as callers see it."""
    storm = row.storm
    return ingest_pb2.Storm(
        name=names.storm(row.id),
        package=storm.package,
        type=storm.type,
        state=WORDS[storm.state],
        plugins=row.plugins,
        fleet=row.fleet,
        start_time=stamp(storm.begin_time),
        end_time=stamp(storm.end_time),
        reason=row.end_reason or row.reason,
    )


def told(row: Row, step: Step) -> Event:
    """The fact a step tells."""
    storm = row.storm
    if step.told is Told.BEGAN:
        began = events_pb2.StormStarted(
            storm=row.id, package=storm.package, type=storm.type, plugins=row.plugins, fleet=row.fleet
        )
        return fact(SOURCE, began, reason=step.reason)
    ended = events_pb2.StormEnded(storm=row.id, package=storm.package, type=storm.type, by_person=bool(storm.ended_by))
    return fact(SOURCE, ended, actor=step.actor, reason=step.reason)
