"""Whether settings make sense as a whole.

Rule: everything that is wrong is said at once, each with its field, the rule it breaks and what to write instead;
settings that are wrong change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from libs.common.errors import Invalid
from services.ops.notify.addresses import channel_errors
from services.ops.notify.defaults import NEVER_NOTIFIED
from services.ops.notify.model import DAYS, Audience, QuietHours, Route, Settings
from services.ops.notify.quiet_hours import always_quiet, clock_time

ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
MOST = {"channels": 50, "routes": 50, "quiet_hours": 20}
STEPS, NAMED = 5, 200
# Any moment will do: a week is looked at from it.
SOME_DAY = datetime(2026, 1, 5, tzinfo=UTC)
WINDOWS = {
    "batch_window": (timedelta(seconds=1), timedelta(hours=1)),
    "repeat_window": (timedelta(0), timedelta(days=1)),
    "summary_interval": (timedelta(minutes=1), timedelta(days=7)),
    "retry_for": (timedelta(seconds=1), timedelta(days=7)),
}
ANSWER = (timedelta(seconds=10), timedelta(days=1))
LISTED = 12  # complaints spelt out; more are counted

Complain = Callable[[str, str], None]


def check(settings: Settings, facts: frozenset[str]) -> None:
    """Raises Invalid for settings that make no sense; `facts` are the kinds of facts there are."""
    wrong: list[tuple[str, str]] = []

    def complain(field: str, rule: str) -> None:
        wrong.append((field, rule))

    for field, most in MOST.items():
        _ids(field, most, [each.id for each in getattr(settings, field)], complain)
    for field, (least, longest) in WINDOWS.items():
        if not least <= getattr(settings, field) <= longest:
            complain(field, f"must be between {_span(least)} and {_span(longest)}")
    for place, channel in enumerate(settings.channels):
        for field_, rule in channel_errors(channel):
            complain(f"channels[{place}].{field_}", rule)
    for place, hours in enumerate(settings.quiet_hours):
        _hours(f"quiet_hours[{place}]", hours, complain)
    for place, route in enumerate(settings.routes):
        _route(f"routes[{place}]", route, settings, facts, complain)
    if not wrong:
        _check_quiet_hours(settings, complain)
    if wrong:
        raise refusal(wrong)


def refusal(wrong: Sequence[tuple[str, str]]) -> Invalid:
    """One error that says all that is wrong; it is about the first of it."""
    listed = "; ".join(f"{field}: {rule}" for field, rule in wrong[:LISTED])
    more = f"; and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
    problem = Invalid(f"{listed}{more}", reason="NOTIFICATION_SETTINGS", field=wrong[0][0])
    problem.metadata = dict(wrong[:LISTED])
    return problem


def _ids(field: str, most: int, ids: Sequence[str], complain: Complain) -> None:
    if len(ids) > most:
        complain(field, f"at most {most}")
    for place, name in enumerate(ids):
        if not ID.fullmatch(name):
            rule = "1 to 40 lower-case letters, digits and dashes, for example on-call"
            complain(f"{field}[{place}].id", f"{name[:40]!r} is no id; {rule}")
        elif name in ids[:place]:
            complain(f"{field}[{place}].id", f"{name} is there twice; give one another id")


def _hours(field: str, hours: QuietHours, complain: Complain) -> None:
    try:
        ZoneInfo(hours.time_zone)
    except (ValueError, OSError, LookupError):
        complain(f"{field}.time_zone", f"{hours.time_zone[:40]!r} is no IANA time zone; write, say, Europe/Paris")
    for field_ in ("start", "end"):
        text = getattr(hours, field_)
        try:
            clock_time(text)
        except ValueError:
            complain(f"{field}.{field_}", f"{text[:20]!r} is no time of day; write, say, 22:00")
    if hours.start == hours.end:
        complain(f"{field}.end", "must differ from start; for a whole day write 00:00 to 24:00")
    for day in hours.days:
        if day not in DAYS:
            complain(f"{field}.days", f"{day[:20]!r} is no day; write {', '.join(DAYS)}")


def _route(field: str, route: Route, settings: Settings, facts: frozenset[str], complain: Complain) -> None:
    if not 1 <= len(route.steps) <= STEPS:
        complain(f"{field}.steps", f"1 to {STEPS} steps; the first is told at once")
    for place, step in enumerate(route.steps):
        at = f"{field}.steps[{place}]"
        if not step.channels:
            complain(f"{at}.channels", "names no channel")
        _known(f"{at}.channels", "channel", step.channels, [each.id for each in settings.channels], complain)
        last = place == len(route.steps) - 1
        if not (last and not step.acknowledge_within) and not ANSWER[0] <= step.acknowledge_within <= ANSWER[1]:
            complain(f"{at}.acknowledge_within", f"must be between {_span(ANSWER[0])} and {_span(ANSWER[1])}")
    for fact in route.facts:
        if fact in NEVER_NOTIFIED:
            complain(f"{field}.facts", f"{fact} is told by notifications themselves and never causes one; leave it out")
        elif fact not in facts:
            complain(f"{field}.facts", f"there is no fact {fact[:60]!r}; see events.proto, say incident_escalated")
    _known(f"{field}.quiet_hours", "quiet hours", route.quiet_hours, [h.id for h in settings.quiet_hours], complain)
    if route.audience is Audience.MERCHANTS and not route.merchants:
        complain(f"{field}.merchants", "a route to merchants names them, or one would read of another's plugins")
    if len(route.merchants) > NAMED:
        complain(f"{field}.merchants", f"at most {NAMED}; leave them out for all")
    if not all(0 < len(merchant) <= 128 and merchant.isprintable() for merchant in route.merchants):
        complain(f"{field}.merchants", "each is the id of a merchant, 1 to 128 characters")


def _known(field: str, what: str, named: Sequence[str], known: Sequence[str], complain: Complain) -> None:
    for place, name in enumerate(named):
        if name not in known:
            there = ", ".join(known[:10]) or "there are none"
            complain(field, f"there are no {what} {name[:40]!r} (known: {there})")
        elif name in named[:place]:
            complain(field, f"{name} is there twice")


def _check_quiet_hours(settings: Settings, complain: Complain) -> None:
    for place, route in enumerate(settings.routes):
        if route.quiet_hours and always_quiet(settings.hours_of(route), SOME_DAY):
            complain(f"routes[{place}].quiet_hours", "together they leave no moment of the week; shorten one of them")


def _span(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds and seconds % size == 0:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
