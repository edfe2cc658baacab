"""Routes: who hears of a fact.

Rule: a fact goes to every route whose kinds, severity and merchants it fits. A route that names merchants hears of
nothing that is not theirs, so that what is told to one merchant is never another's. Without any route what people
would hear by default is only recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.ops.notify.catalogue import FOR_MERCHANTS, FOR_OPERATORS, OWN
from services.ops.notify.model import Audience, Notice, Route, Settings

# What stands in when nobody has set a route: it has no steps, so nothing is sent.
RECORDED = Route(id="", steps=())


def in_force(settings: Settings) -> Sequence[Route]:
    """The routes facts are held against."""
    return settings.routes or (RECORDED,)


def heard(settings: Settings) -> frozenset[str]:
    """Every kind of fact that any route may want."""
    return frozenset().union(*(kinds(route) for route in in_force(settings)))


def kinds(route: Route) -> frozenset[str]:
    """The kinds of facts a route may want."""
    if route.facts:
        return frozenset(route.facts) - OWN
    return FOR_MERCHANTS if route.audience is Audience.MERCHANTS else FOR_OPERATORS


def fits(route: Route, notice: Notice) -> bool:
    """Whether a route tells of this."""
    if notice.fact not in kinds(route) or notice.severity < route.min_severity:
        return False
    if route.merchants and notice.merchant not in route.merchants:
        return False
    # A merchant hears of patches that worked, not of every restart, unless the route asks for it.
    unasked = route.audience is Audience.MERCHANTS and not route.facts and notice.fact == "attempt_succeeded"
    return not unasked or notice.action == "patch"


def chosen(settings: Settings, notice: Notice) -> list[Route]:
    """The routes that tell of this, in their order."""
    return [route for route in in_force(settings) if fits(route, notice)]
