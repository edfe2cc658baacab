"""Routes: which facts go where.

Rule: a fact goes to every route whose kinds, severity and merchants it fits. A route that names merchants gets
nothing that is not theirs, so that one merchant is never sent what is another's. Without any route what operators get
by default is only recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.ops.notify.defaults import FOR_MERCHANTS, FOR_OPERATORS, NEVER_NOTIFIED
from services.ops.notify.model import Audience, Notice, Route, Settings

# What stands in when nobody has set a route: it has no steps, so nothing is sent.
RECORDED = Route(id="", steps=())


def routes_of(settings: Settings) -> Sequence[Route]:
    """The routes facts are matched with."""
    return settings.routes or (RECORDED,)


def fact_kinds(settings: Settings) -> frozenset[str]:
    """Every kind of fact that any route takes."""
    return frozenset().union(*(kinds(route) for route in routes_of(settings)))


def kinds(route: Route) -> frozenset[str]:
    """The kinds of facts a route takes."""
    if route.facts:
        return frozenset(route.facts) - NEVER_NOTIFIED
    return FOR_MERCHANTS if route.audience is Audience.MERCHANTS else FOR_OPERATORS


def matches(route: Route, notice: Notice) -> bool:
    """Whether a route takes this."""
    if notice.fact not in kinds(route) or notice.severity < route.min_severity:
        return False
    if not route.facts and not notice.routed:
        return False
    if route.merchants and notice.merchant not in route.merchants:
        return False
    # A merchant gets patches that worked, not of every restart, unless the route asks for it.
    excluded = route.audience is Audience.MERCHANTS and not route.facts and notice.fact == "attempt_succeeded"
    return not excluded or notice.action == "patch"


def matching(settings: Settings, notice: Notice) -> list[Route]:
    """The routes that take this, in their order."""
    return [route for route in routes_of(settings) if matches(route, notice)]
