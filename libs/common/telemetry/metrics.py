"""Metrics of the process, one registry, made once per name.

Label values come from closed sets (method names, kinds, outcomes), never from ids or texts: the number of series is
bounded whatever agents do.
"""

from collections.abc import Sequence
from typing import TypeVar

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, make_asgi_app
from starlette.types import ASGIApp

T = TypeVar("T", Counter, Gauge, Histogram)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_made: dict[str, Counter | Gauge | Histogram] = {}


def counter(name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only rises; `prunella_` is put before the name."""
    return _once(name, Counter(f"prunella_{name}", meaning, labels, registry=None))


def gauge(name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that rises and falls; `prunella_` is put before the name."""
    return _once(name, Gauge(f"prunella_{name}", meaning, labels, registry=None))


def histogram(name: str, meaning: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = SECONDS) -> Histogram:
    """How values are spread (seconds, unless the name says otherwise); `prunella_` is put before the name."""
    return _once(name, Histogram(f"prunella_{name}", meaning, labels, buckets=buckets, registry=None))


def metrics_app() -> ASGIApp:
    """The ASGI application that answers with every metric of the process."""
    return make_asgi_app(REGISTRY)  # type: ignore[no-any-return, no-untyped-call, unused-ignore]


def _once(name: str, fresh: T) -> T:
    known = _made.get(name)
    if known is None:
        _made[name] = fresh
        REGISTRY.register(fresh)
        return fresh
    if type(known) is not type(fresh):
        message = f"the metric {name} exists already as another kind"
        raise TypeError(message)
    return known
