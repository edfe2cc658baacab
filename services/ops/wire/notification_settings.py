"""Settings of notifications ⇄ the document people write. Secrets come in and never go out."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration

from prunella.v1 import events_pb2, notification_pb2
from services.ops.notify.addresses import redacted_url
from services.ops.notify.model import Audience, Channel, EscalationStep, Kind, QuietHours, Route, Security, Settings
from services.ops.notify.validation import refusal
from services.ops.severity import Severity

E = TypeVar("E", bound=StrEnum)
WINDOWS = ("batch_window", "repeat_window", "summary_interval", "retry_for")
DEFAULTS = Settings()


def settings(found: Settings) -> notification_pb2.NotificationSettings:
    """The settings for people, without secrets."""
    made = notification_pb2.NotificationSettings(
        version=found.version,
        etag=str(found.version),
        channels=[_channel_message(each) for each in found.channels],
        routes=[_route_message(each) for each in found.routes],
        quiet_hours=[_hours_message(each) for each in found.quiet_hours],
        updated_by=found.updated_by,
        reason=found.reason,
    )
    for name in WINDOWS:
        getattr(made, name).FromTimedelta(getattr(found, name))
    if found.update_time:
        made.update_time.FromDatetime(found.update_time)
    return made


def settings_of(message: notification_pb2.NotificationSettings) -> Settings:
    """The settings of a request; windows that are left out have their defaults. Raises Invalid."""
    windows: dict[str, Any] = {
        name: _span(getattr(message, name)) if message.HasField(name) else getattr(DEFAULTS, name)  # type: ignore[arg-type]
        for name in WINDOWS
    }
    return Settings(
        channels=tuple(_channel(f"channels[{place}]", each) for place, each in enumerate(message.channels)),
        routes=tuple(_route(f"routes[{place}]", each) for place, each in enumerate(message.routes)),
        quiet_hours=tuple(_hours(each) for each in message.quiet_hours),
        **windows,
    )


def _channel(field: str, message: notification_pb2.NotificationChannel) -> Channel:
    kind = message.WhichOneof("kind")
    if kind == "webhook":
        return Channel(message.id, Kind.WEBHOOK, url=message.webhook.url, secret=message.webhook.secret)
    if kind == "slack":
        # What is shown of an address ends in …; it is no address, and stands for the one there is.
        url = "" if message.slack.url.endswith("…") else message.slack.url
        return Channel(message.id, Kind.SLACK, url=_redacted(url), secret=url)
    if kind == "email":
        mail = message.email
        return Channel(
            message.id,
            Kind.EMAIL,
            host=mail.host,
            port=mail.port,
            security=_word(f"{field}.security", Security, mail.security or Security.STARTTLS),
            username=mail.username,
            sender=mail.sender,
            recipients=tuple(mail.recipients),
            secret=mail.password,
        )
    raise refusal([(field, "is of no kind; give it one of webhook, slack and email")])


def _redacted(url: str) -> str:
    """The part of a secret address that may be shown; empty for what is none."""
    try:
        return redacted_url(url) if url else ""
    except ValueError:
        return ""


def _route(field: str, message: notification_pb2.NotificationRoute) -> Route:
    number = int(message.min_severity)
    if number not in {0, *(int(each) for each in Severity)}:
        raise refusal([(f"{field}.min_severity", f"there is no severity {number}; write, say, SEVERITY_HIGH")])
    return Route(
        id=message.id,
        steps=tuple(EscalationStep(tuple(step.channels), _span(step.acknowledge_within)) for step in message.steps),
        facts=tuple(message.facts),
        min_severity=Severity(number or Severity.LOW),
        merchants=tuple(message.merchants),
        audience=_word(f"{field}.audience", Audience, message.audience or Audience.OPERATORS),
        quiet_hours=tuple(message.quiet_hours),
    )


def _hours(message: notification_pb2.NotificationQuietHours) -> QuietHours:
    return QuietHours(message.id, message.time_zone, message.start, message.end, tuple(message.days))


def _word(field: str, kind: type[E], text: str) -> E:
    try:
        return kind(text)
    except ValueError:
        raise refusal([(field, f"{text[:40]!r} is none of {', '.join(kind)}")]) from None


def _span(message: Duration) -> timedelta:
    try:
        return message.ToTimedelta()
    except (OverflowError, ValueError):
        return timedelta(days=-1)


def _channel_message(found: Channel) -> notification_pb2.NotificationChannel:
    made = notification_pb2.NotificationChannel(id=found.id)
    if found.kind is Kind.WEBHOOK:
        made.webhook.url, made.webhook.secret_set = found.url, bool(found.sealed)
    elif found.kind is Kind.SLACK:
        made.slack.url = found.url
    else:
        made.email.CopyFrom(
            notification_pb2.EmailChannel(
                host=found.host,
                port=found.port,
                security=found.security.value,
                username=found.username,
                password_set=bool(found.sealed),
                sender=found.sender,
                recipients=found.recipients,
            )
        )
    return made


def _route_message(found: Route) -> notification_pb2.NotificationRoute:
    made = notification_pb2.NotificationRoute(
        id=found.id,
        facts=found.facts,
        min_severity=events_pb2.Severity.Value(f"SEVERITY_{found.min_severity.name}"),
        merchants=found.merchants,
        audience=found.audience.value,
        quiet_hours=found.quiet_hours,
    )
    for step in found.steps:
        added = made.steps.add(channels=step.channels)
        if step.acknowledge_within:
            added.acknowledge_within.FromTimedelta(step.acknowledge_within)
    return made


def _hours_message(found: QuietHours) -> notification_pb2.NotificationQuietHours:
    return notification_pb2.NotificationQuietHours(
        id=found.id, time_zone=found.time_zone, start=found.start, end=found.end, days=found.days
    )
