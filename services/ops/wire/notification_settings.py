"""Settings of notifications ⇄ the document people write. Secrets come in and never go out."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration

from prunella.v1 import events_pb2, notification_pb2
from services.ops.notify.addresses import shown
from services.ops.notify.check import refusal
from services.ops.notify.model import Audience, Channel, Kind, QuietHours, Route, Security, Settings, Severity, Step

E = TypeVar("E", bound=StrEnum)
WINDOWS = ("batch_window", "repeat_window", "retry_for")
DEFAULTS = Settings()


def settings(found: Settings) -> notification_pb2.NotificationSettings:
    """The settings as people see them."""
    made = notification_pb2.NotificationSettings(
        version=found.version,
        etag=str(found.version),
        channels=[_told_channel(each) for each in found.channels],
        routes=[_told_route(each) for each in found.routes],
        quiet_hours=[_told_hours(each) for each in found.quiet_hours],
        updated_by=found.updated_by,
        reason=found.reason,
    )
    for name in WINDOWS:
        getattr(made, name).FromTimedelta(getattr(found, name))
    if found.update_time:
        made.update_time.FromDatetime(found.update_time)
    return made


def read_settings(given: notification_pb2.NotificationSettings) -> Settings:
    """The settings somebody wrote; windows that are left out have their defaults. Raises Invalid."""
    windows: dict[str, Any] = {
        name: _span(getattr(given, name)) if given.HasField(name) else getattr(DEFAULTS, name)  # type: ignore[arg-type]
        for name in WINDOWS
    }
    return Settings(
        channels=tuple(_channel(f"channels[{place}]", each) for place, each in enumerate(given.channels)),
        routes=tuple(_route(f"routes[{place}]", each) for place, each in enumerate(given.routes)),
        quiet_hours=tuple(_hours(each) for each in given.quiet_hours),
        **windows,
    )


def _channel(field: str, given: notification_pb2.NotificationChannel) -> Channel:
    kind = given.WhichOneof("kind")
    if kind == "webhook":
        return Channel(given.id, Kind.WEBHOOK, url=given.webhook.url, secret=given.webhook.secret)
    if kind == "slack":
        # What is shown of an address ends in …; it is no address, and stands for the one there is.
        url = "" if given.slack.url.endswith("…") else given.slack.url
        return Channel(given.id, Kind.SLACK, url=shown_safely(url), secret=url)
    if kind == "email":
        mail = given.email
        return Channel(
            given.id,
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


def shown_safely(url: str) -> str:
    """The part of a secret address that may be shown; empty for what is none."""
    try:
        return shown(url) if url else ""
    except ValueError:
        return ""


def _route(field: str, given: notification_pb2.NotificationRoute) -> Route:
    number = int(given.min_severity)
    if number not in {0, *(int(each) for each in Severity)}:
        raise refusal([(f"{field}.min_severity", f"there is no severity {number}; write, say, SEVERITY_HIGH")])
    return Route(
        id=given.id,
        steps=tuple(Step(tuple(step.channels), _span(step.answer_within)) for step in given.steps),
        facts=tuple(given.facts),
        min_severity=Severity(number or Severity.LOW),
        merchants=tuple(given.merchants),
        audience=_word(f"{field}.audience", Audience, given.audience or Audience.OPERATORS),
        quiet_hours=tuple(given.quiet_hours),
    )


def _hours(given: notification_pb2.NotificationQuietHours) -> QuietHours:
    return QuietHours(given.id, given.time_zone, given.start, given.end, tuple(given.days))


def _word(field: str, kind: type[E], text: str) -> E:
    try:
        return kind(text)
    except ValueError:
        raise refusal([(field, f"{text[:40]!r} is none of {', '.join(kind)}")]) from None


def _span(given: Duration) -> timedelta:
    try:
        return given.ToTimedelta()
    except (OverflowError, ValueError):
        return timedelta(days=-1)


def _told_channel(found: Channel) -> notification_pb2.NotificationChannel:
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


def _told_route(found: Route) -> notification_pb2.NotificationRoute:
    made = notification_pb2.NotificationRoute(
        id=found.id,
        facts=found.facts,
        min_severity=events_pb2.Severity.Value(f"SEVERITY_{found.min_severity.name}"),
        merchants=found.merchants,
        audience=found.audience.value,
        quiet_hours=found.quiet_hours,
    )
    for step in found.steps:
        told = made.steps.add(channels=step.channels)
        if step.answer_within:
            told.answer_within.FromTimedelta(step.answer_within)
    return made


def _told_hours(found: QuietHours) -> notification_pb2.NotificationQuietHours:
    return notification_pb2.NotificationQuietHours(
        id=found.id, time_zone=found.time_zone, start=found.start, end=found.end, days=found.days
    )
