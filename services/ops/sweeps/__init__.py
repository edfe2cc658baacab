"""Door 3, time passed: facts get their positions, old spans go, messages go out."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from services.ops.doors import Doors
from services.ops.sweeps.timeline import forget_spans, place_facts

Sweep = Callable[[Doors, datetime], Awaitable[int]]
SWEEPS: Mapping[str, tuple[float, Sweep]] = {
    "place_facts": (0.5, place_facts),
    "forget_spans": (300.0, forget_spans),
}
