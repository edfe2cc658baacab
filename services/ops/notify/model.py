"""The settings of notifications, and a fact on its way into a message.

Rule: the settings are one document with a version; what is not set has a default that notifies nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from services.ops.severity import Severity

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Kind(StrEnum):
    """How a channel is spoken to."""

    WEBHOOK = "webhook"
    SLACK = "slack"
    EMAIL = "email"


class Security(StrEnum):
    """How mail is carried: upgraded by STARTTLS, TLS from the first byte, or open."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class Audience(StrEnum):
    """Whom a route notifies: operators of the plane, or the merchants it names."""

    OPERATORS = "operators"
    MERCHANTS = "merchants"


@dataclass(frozen=True)
class Channel:
    """One place messages go to. `secret` is what somebody just typed, `sealed` what is stored of it."""

    id: str
    kind: Kind
    # A webhook's address; of Slack's, which is a secret itself, only the part that may be shown.
    url: str = ""
    host: str = ""
    port: int = 0
    security: Security = Security.STARTTLS
    username: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    secret: str = field(default="", repr=False)
    sealed: str = field(default="", repr=False)


@dataclass(frozen=True)
class EscalationStep:
    """Channels that are notified together, and how long somebody may take to acknowledge; zero never escalates."""

    channels: tuple[str, ...]
    acknowledge_within: timedelta = timedelta(0)


@dataclass(frozen=True)
class QuietHours:
    """From `start` to `end` (HH:MM on the clocks of an IANA zone) on nights that begin on `days`; empty means all."""

    id: str
    time_zone: str
    start: str
    end: str
    days: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    """Which facts go where. Empty `facts` are its audience's defaults, empty `merchants` all."""

    id: str
    steps: tuple[EscalationStep, ...]
    facts: tuple[str, ...] = ()
    min_severity: Severity = Severity.LOW
    merchants: tuple[str, ...] = ()
    audience: Audience = Audience.OPERATORS
    quiet_hours: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """All settings. Facts of one route within `batch_window` are one message; the same again within
    `repeat_window` is counted, not sent; how often incidents came back is told in sum each `summary_interval`; a
    channel that fails is tried for `retry_for`.
    """

    channels: tuple[Channel, ...] = ()
    routes: tuple[Route, ...] = ()
    quiet_hours: tuple[QuietHours, ...] = ()
    batch_window: timedelta = timedelta(seconds=10)
    # As long as ingest goes on with an incident that comes back.
    repeat_window: timedelta = timedelta(minutes=30)
    summary_interval: timedelta = timedelta(hours=1)
    retry_for: timedelta = timedelta(hours=24)
    version: int = 0
    update_time: datetime | None = None
    updated_by: str = ""
    reason: str = ""

    def channel(self, name: str) -> Channel | None:
        """The channel of this id."""
        return next((each for each in self.channels if each.id == name), None)

    def route(self, name: str) -> Route | None:
        """The route of this id."""
        return next((each for each in self.routes if each.id == name), None)

    def hours_of(self, route: Route) -> tuple[QuietHours, ...]:
        """The quiet hours a route keeps."""
        return tuple(each for each in self.quiet_hours if each.id in route.quiet_hours)


@dataclass(frozen=True, slots=True)
class Notice:
    """A fact that may concern somebody; `key` is the same for the same thing happening again."""

    event: str
    time: datetime
    fact: str
    severity: Severity
    headline: str
    key: str
    plugin: str = ""
    merchant: str = ""
    incident: str = ""
    # The fields of the fact that say whether it is worth a merchant's time.
    action: str = ""
    # What to type next, empty when there is nothing to do.
    command: str = ""
    # Whether routes that go by defaults take it.
    routed: bool = True

    @property
    def urgent(self) -> bool:
        """Whether it gets through in quiet hours."""
        return self.severity is Severity.CRITICAL
