"""Notifications ⇄ dataclasses: settings as people write them, messages as they see them, facts as they are told."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message as Proto

from libs.common import names
from libs.common.bus import fact
from libs.common.errors import Invalid
from prunella.v1 import events_pb2, notification_pb2
from prunella.v1.events_pb2 import Event
from services.ops.notify import catalogue
from services.ops.notify.changes import Difference
from services.ops.notify.escalation import State, Turn
from services.ops.notify.message import title
from services.ops.notify.model import Notice, Settings, Severity
from services.ops.store.deliveries import Delivery
from services.ops.store.notifications import Notification
from services.ops.timeline import Entry, headline
from services.ops.wire.facts import told as plainly

SOURCE = "ops"


def notice(row: Entry) -> Notice:
    """A row of the timeline, as routes look at it."""
    event = Event.FromString(row.payload)
    said = plainly(event, row.label)
    return Notice(
        event=event.id,
        time=event.time.ToDatetime(UTC),
        fact=row.fact,
        severity=catalogue.severity(said),
        headline=headline(said),
        key=catalogue.key(said, plugin=event.plugin, incident=event.incident),
        plugin=event.plugin,
        merchant=event.merchant,
        incident=event.incident,
        action=said.text("action", ""),
    )


def moved(found: Notification, state: State, act_by: datetime | None) -> Notification:
    """The message in another state."""
    return replace(found, state=state, act_by=act_by)


def seen(found: Notification, actor: str, reason: str, now: datetime) -> Notification:
    """The message after a person said so."""
    return replace(
        found,
        state=State.ACKNOWLEDGED,
        act_by=None,
        acknowledged_at=now,
        acknowledged_by=actor,
        detail=reason or "somebody has seen it",
    )


def delivery_ended(found: Notification, delivery: Delivery) -> Event:
    """The fact that a channel took a message, or did not."""
    about: dict[str, Any] = {
        "notification": names_of(found.id),
        "channel": delivery.channel,
        "tries": delivery.tries,
    }
    if delivery.state is State.SENT:
        sent = events_pb2.NotificationSent(facts=found.batch.facts, **about)
        return _fact(found, sent, reason=f"{delivery.channel} took it")
    failed = events_pb2.NotificationFailed(error=delivery.error, **about)
    return _fact(found, failed, reason=f"{delivery.channel} did not take it: {delivery.error}")


def escalated(found: Notification, turn: Turn) -> Event:
    """The fact that nobody answered in time."""
    channels = turn.step.channels if turn.step else ()
    told = events_pb2.NotificationEscalated(notification=names_of(found.id), step=turn.number, channels=channels)
    return _fact(found, told, reason="nobody answered in time")


def acknowledged(found: Notification, actor: str, reason: str) -> Event:
    """The fact that a person has seen it."""
    told = events_pb2.NotificationAcknowledged(notification=names_of(found.id))
    return _fact(found, told, actor=actor, reason=reason or "seen")


def settings_changed(made: Settings, changes: Sequence[Difference]) -> Event:
    """The fact that channels or routes were changed."""
    told = events_pb2.NotificationSettingsChanged(version=made.version)
    for each in changes:
        told.changes.add(field=each.field, before=each.before, after=each.after)
    return fact(SOURCE, told, actor=made.updated_by, reason=made.reason)


def names_of(id_: str) -> str:
    """`notifications/{notification}`."""
    return f"notifications/{id_}"


def _fact(found: Notification, told: Proto, *, actor: str = "", reason: str) -> Event:
    # What tells of one plugin or incident belongs to its story; what tells of many belongs to none.
    def only(listed: Sequence[str]) -> str:
        return listed[0] if len(listed) == 1 else ""

    merchants = {line.merchant for line in found.batch.lines}
    merchant = merchants.pop() if len(merchants) == 1 and found.plugins else ""
    return fact(
        SOURCE,
        told,
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
        name=names_of(found.id),
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
        create_time=found.created_at,
        due_time=found.due_at,
        act_by_time=found.act_by,
        acknowledge_time=found.acknowledged_at,
    )
    return made


def filters(request: notification_pb2.ListNotificationsRequest) -> dict[str, str]:
    """What a list is asked for; ids may come with their collection. Raises Invalid."""
    if request.state and request.state not in set(State):
        known = ", ".join(State)
        raise Invalid(
            f"there is no state {request.state[:40]!r}; the states are {known}", reason="UNKNOWN_STATE", field="state"
        )
    asked = {"state": request.state, "route": request.route}
    for field, collection in (("incident", "incidents"), ("plugin", "plugins")):
        name = getattr(request, field)
        given = name if "/" in name or not name else f"{collection}/{name}"
        asked[field] = names.parse(collection, given, field=field) if given else ""
    return asked


def _line(line: Notice) -> notification_pb2.NotificationLine:
    made = notification_pb2.NotificationLine(
        event=line.event,
        fact=line.fact,
        severity=_severity(line.severity),
        headline=line.headline,
        plugin=line.plugin,
        merchant=line.merchant,
        incident=line.incident,
    )
    _times(made, time=line.time)
    return made


def _delivery(found: Delivery) -> notification_pb2.NotificationDelivery:
    made = notification_pb2.NotificationDelivery(
        id=found.id,
        channel=found.channel,
        step=found.step,
        state=found.state.value,
        tries=found.tries,
        last_error=found.error,
        answer=found.answer,
    )
    _times(made, try_time=found.tried_at, send_time=found.sent_at)
    return made


def _severity(severity: Severity) -> Any:
    return events_pb2.Severity.Value(f"SEVERITY_{severity.name}")


def _times(message: Any, **moments: datetime | None) -> None:
    for field, moment in moments.items():
        if moment:
            getattr(message, field).FromDatetime(moment)


def notification_id(name: str) -> str:
    """The id in `notifications/{notification}`. Raises Invalid."""
    id_ = names.parse("notifications", name if "/" in name else f"notifications/{name}")
    try:
        return str(uuid.UUID(id_))
    except ValueError:
        raise Invalid(f"name must hold a UUID, not {id_[:80]!r}", reason="BAD_NAME", field="name", name=id_) from None
