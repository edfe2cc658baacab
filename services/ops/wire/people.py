"""What people note about incidents, for people."""

from __future__ import annotations

from libs.common import names
from libs.common.facts import fact
from prunella.v1 import events_pb2, people_pb2
from prunella.v1.events_pb2 import Event
from services.ops.notes import Assignment, Comment, Notes

SOURCE = "ops"


def notes(found: Notes) -> people_pb2.IncidentNotes:
    """The notes of an incident."""
    made = people_pb2.IncidentNotes(incident=names.incident(found.incident))
    if found.assigned is not None:
        made.assignee, made.assigner = found.assigned.assignee, found.assigned.actor
        made.assign_time.FromDatetime(found.assigned.time)
    for said in found.comments:
        comment = made.comments.add(id=said.id, author=said.actor, text=said.text)
        comment.time.FromDatetime(said.time)
    return made


def assigned(made: Assignment, before: str, about: Event, reason: str) -> Event:
    """incident_assigned, about the plugin and merchant that another fact of the incident is about."""
    told = events_pb2.IncidentAssigned(assignee=made.assignee, before=before)
    return _fact(told, made.actor, reason, about)


def commented(made: Comment, about: Event) -> Event:
    """incident_commented."""
    told = events_pb2.IncidentCommented(comment=made.id, text=made.text)
    return _fact(told, made.actor, "a person said something", about)


def _fact(
    told: events_pb2.IncidentAssigned | events_pb2.IncidentCommented, actor: str, reason: str, about: Event
) -> Event:
    return fact(
        SOURCE,
        told,
        actor=actor,
        reason=reason,
        plugin=about.plugin,
        merchant=about.merchant,
        incident=about.incident,
    )
