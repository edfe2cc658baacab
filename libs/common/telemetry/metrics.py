"""Metrics of the process, one registry, made once per name.

Label values come from closed sets (method names, kinds, outcomes), never from ids or texts. What comes from elsewhere
all the same (a type an agent named, a tool) is bounded here: beyond `SERIES` combinations of one metric, the rest is
counted as `other`, so the number of series is bounded whatever agents do.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics, make_asgi_app
from starlette.types import ASGIApp

T = TypeVar("T", Counter, Gauge, Histogram)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SERIES: Final = 1000
OTHER: Final = "other"
PREFIX: Final = "prunella_"

# When a series began is told by its first sample; a second series for each would double their number.
disable_created_metrics()  # type: ignore[no-untyped-call, unused-ignore]

_made: dict[str, Counter | Gauge | Histogram] = {}
_labels: dict[str, tuple[str, ...]] = {}


def counter(name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only rises; `prunella_` is put before the name."""
    return _once(name, Counter(f"{PREFIX}{name}", meaning, labels, registry=None), labels)


def gauge(name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that rises and falls; `prunella_` is put before the name."""
    return _once(name, Gauge(f"{PREFIX}{name}", meaning, labels, registry=None), labels)


def histogram(name: str, meaning: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = SECONDS) -> Histogram:
    """How values are spread (seconds, unless the name says otherwise); `prunella_` is put before the name."""
    return _once(name, Histogram(f"{PREFIX}{name}", meaning, labels, buckets=buckets, registry=None), labels)


def declared() -> dict[str, tuple[str, ...]]:
    """Every metric that was made in this process, by its full name, with its labels."""
    return {f"{PREFIX}{name}": labels for name, labels in _labels.items()}


def metrics_app() -> ASGIApp:
    """The ASGI application that answers with every metric of the process."""
    return make_asgi_app(REGISTRY)  # type: ignore[no-any-return, no-untyped-call, unused-ignore]


def _once(name: str, fresh: T, labels: Sequence[str]) -> T:
    known = _made.get(name)
    if known is None:
        _bound(fresh, len(labels))
        _made[name], _labels[name] = fresh, tuple(labels)
        REGISTRY.register(fresh)
        return fresh
    if type(known) is not type(fresh):
        message = f"the metric {name} exists already as another kind"
        raise TypeError(message)
    return known


def _bound(metric: Any, width: int) -> None:
    """Has `labels` give the series `other` for new values once there are enough of them."""
    seen: set[tuple[str, ...]] = set()
    series = metric.labels

    def labels(*values: object) -> Any:
        key = tuple(str(value) for value in values)
        if key not in seen:
            if len(seen) >= SERIES:
                return series(*(OTHER,) * width)
            # Only what it took: a wrong number of labels raises.
            made = series(*key)
            seen.add(key)
            return made
        return series(*key)

    metric.labels = labels
