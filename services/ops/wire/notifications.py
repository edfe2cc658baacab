"""Notifications ⇄ dataclasses: settings as people write them, messages as they see them, facts as they are told."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from google.protobuf.message import Message as Proto

from libs.common import facts, names
from libs.common.errors import Invalid
from prunella.v1 import events_pb2, notification_pb2
from prunella.v1.events_pb2 import Event
from services.ops.headlines import headline
from services.ops.notify import defaults
from services.ops.notify.escalation import NextStep, State
from services.ops.notify.message import title
from services.ops.notify.model import Notice, Settings
from services.ops.notify.settings_diff import Difference
from services.ops.severity import Severity
from services.ops.store.deliveries import Delivery
from services.ops.store.notifications import Notification
from services.ops.store.repeats import IncidentEnd
from services.ops.timeline import TimelineEntry
from services.ops.wire.facts import decoded_fact
from services.ops.wire.filters import id_in

SOURCE = "ops"


def notice(row: TimelineEntry) -> Notice:
    """A row of the timeline, as routes look at it."""
    fact = decoded_fact(Event.FromString(row.payload), row.label)
    return Notice(
        event=fact.id,
        time=fact.time,
        fact=row.fact,
        severity=defaults.severity(fact),
        headline=headline(fact),
        key=defaults.dedup_key(fact),
        plugin=fact.plugin,
        merchant=fact.merchant,
        incident=fact.incident,
        action=fact.text("action", ""),
        command=defaults.command(fact),
        routed=defaults.routed(fact),
    )


def incident_end(row: TimelineEntry) -> IncidentEnd:
    """A row that tells of the end of an incident."""
    fact = decoded_fact(Event.FromString(row.payload), row.label)
    return IncidentEnd(defaults.incident_key(fact), calm=bool(fact.fields.get("flapping")))


def acknowledge(found: Notification, actor: str, reason: str, now: datetime) -> Notification:
    """The message after a person acknowledged it."""
    return replace(
        found,
        state=State.ACKNOWLEDGED,
        act_by_time=None,
        acknowledge_time=now,
        acknowledged_by=actor,
        detail=reason or "somebody has seen it",
    )


def delivery_ended(found: Notification, delivery: Delivery) -> Event:
    """The fact that a channel took a message, or did not."""
    about: dict[str, Any] = {
        "notification": notification_name(found.id),
        "channel": delivery.channel,
        "tries": delivery.tries,
    }
    if delivery.state is State.SENT:
        sent = events_pb2.NotificationSent(facts=found.batch.facts, **about)
        return _fact(found, sent, reason=f"{delivery.channel} took it")
    failed = events_pb2.NotificationFailed(error=delivery.error, **about)
    return _fact(found, failed, reason=f"{delivery.channel} did not take it: {delivery.error}")


def escalated(found: Notification, next_step: NextStep) -> Event:
    """The fact that nobody answered in time."""
    name, channels = notification_name(found.id), next_step.step.channels if next_step.step else ()
    message = events_pb2.NotificationEscalated(notification=name, step=next_step.number, channels=channels)
    return _fact(found, message, reason="nobody answered in time")


def acknowledged(found: Notification, actor: str, reason: str) -> Event:
    """The fact that a person has seen it."""
    message = events_pb2.NotificationAcknowledged(notification=notification_name(found.id))
    return _fact(found, message, actor=actor, reason=reason or "seen")


def settings_changed(made: Settings, changes: Sequence[Difference]) -> Event:
    """The fact that channels or routes were changed."""
    message = events_pb2.NotificationSettingsChanged(version=made.version)
    for each in changes:
        message.changes.add(field=each.field, before=each.before, after=each.after)
    return facts.fact(SOURCE, message, actor=made.updated_by, reason=made.reason)


def notification_name(id_: str) -> str:
    """`notifications/{notification}`."""
    return f"notifications/{id_}"


def _fact(found: Notification, message: Proto, *, actor: str = "", reason: str) -> Event:
    # What covers one plugin or incident belongs to its story; what covers many belongs to none.
    def only(listed: Sequence[str]) -> str:
        return listed[0] if len(listed) == 1 else ""

    merchants = {line.merchant for line in found.batch.lines}
    merchant = merchants.pop() if len(merchants) == 1 and found.plugins else ""
    return facts.fact(
        SOURCE,
        message,
        actor=actor,
        reason=reason,
        plugin=only(found.plugins),
        incident=only(found.incidents),
        merchant=merchant,
    )


def notification(found: Notification, sent: Sequence[Delivery]) -> notification_pb2.Notification:
    """A message as people see it."""
    batch = found.batch
    made = notification_pb2.Notification(
        name=notification_name(found.id),
        route=found.route,
        state=found.state.value,
        detail=found.detail,
        severity=_severity(batch.severity),
        title=title(batch),
        facts=batch.facts,
        repeats=batch.repeats,
        kinds=dict(batch.kinds),
        lines=[_line(line) for line in batch.lines],
        deliveries=[_delivery(each) for each in sent],
        step=max(0, found.step),
        acknowledged_by=found.acknowledged_by,
    )
    _times(
        made,
        create_time=found.create_time,
        due_time=found.due_time,
        act_by_time=found.act_by_time,
        acknowledge_time=found.acknowledge_time,
    )
    return made


def filters(request: notification_pb2.ListNotificationsRequest) -> dict[str, str]:
    """The filters of a list; ids may come with their collection. Raises Invalid."""
    if request.state and request.state not in set(State):
        known = ", ".join(State)
        raise Invalid(
            f"there is no state {request.state[:40]!r}; the states are {known}", reason="UNKNOWN_STATE", field="state"
        )
    query = {"state": request.state, "route": request.route}
    for field, collection in (("incident", "incidents"), ("plugin", "plugins")):
        query[field] = id_in(collection, getattr(request, field), field)
    return query


def _line(line: Notice) -> notification_pb2.NotificationLine:
    same = {
        name: getattr(line, name) for name in ("event", "fact", "headline", "plugin", "merchant", "incident", "command")
    }
    made = notification_pb2.NotificationLine(severity=_severity(line.severity), **same)
    _times(made, time=line.time)
    return made


def _delivery(found: Delivery) -> notification_pb2.NotificationDelivery:
    same = {name: getattr(found, name) for name in ("id", "channel", "step", "tries", "response")}
    made = notification_pb2.NotificationDelivery(state=found.state.value, last_error=found.error, **same)
    _times(made, try_time=found.try_time, send_time=found.send_time)
    return made


def _severity(severity: Severity) -> Any:
    return events_pb2.Severity.Value(f"SEVERITY_{severity.name}")


def _times(message: Any, **times: datetime | None) -> None:
    for field, time in times.items():
        if time:
            getattr(message, field).FromDatetime(time)


def notification_id(name: str) -> str:
    """The id in `notifications/{notification}`. Raises Invalid."""
    id_ = names.parse("notifications", name if "/" in name else f"notifications/{name}")
    try:
        return str(uuid.UUID(id_))
    except ValueError:
        raise Invalid(f"name must hold a UUID, not {id_[:80]!r}", reason="BAD_NAME", field="name", name=id_) from None
