"""Annotations of incidents ⇄ protobuf, and the facts they record."""

from __future__ import annotations

from google.protobuf.message import Message

from libs.common import names
from libs.common.facts import fact
from prunella.v1 import annotations_pb2, events_pb2
from prunella.v1.events_pb2 import Event
from services.ops.incident_annotations import Annotations, Assignment, Comment


def annotations_of(found: Annotations) -> annotations_pb2.IncidentAnnotations:
    """The annotations of an incident."""
    made = annotations_pb2.IncidentAnnotations(incident=names.incident(found.incident))
    if found.assignment is not None:
        made.assignee, made.assigner = found.assignment.assignee, found.assignment.actor
        made.assign_time.FromDatetime(found.assignment.time)
    for comment in found.comments:
        made.comments.add(id=comment.id, author=comment.actor, text=comment.text).time.FromDatetime(comment.time)
    return made


def assigned(made: Assignment, before: str, about: Event, reason: str) -> Event:
    """incident_assigned, about the plugin and merchant that another fact of the incident is about."""
    return _fact(events_pb2.IncidentAssigned(assignee=made.assignee, before=before), made.actor, reason, about)


def commented(made: Comment, about: Event) -> Event:
    """incident_commented."""
    message = events_pb2.IncidentCommented(comment=made.id, text=made.text)
    return _fact(message, made.actor, "a person said something", about)


def _fact(message: Message, actor: str, reason: str, about: Event) -> Event:
    return fact(
        "ops",
        message,
        actor=actor,
        reason=reason,
        plugin=about.plugin,
        merchant=about.merchant,
        incident=about.incident,
    )
