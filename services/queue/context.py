"""What every door of queue is given: database, clock, model, and the catalogue of strategies."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from libs.common.runtime.assembly import SharedContext
from libs.common.settings import HttpUrl, ServiceSettings, variable
from services.queue import leases
from services.queue.catalogue import Catalogue
from services.queue.errands.model_client import ModelClient
from services.queue.operations.toolset_cache import ToolsetCache

SCHEMA = "queue"
# The signal that waiting claims wait for.
TASKS = "queue.tasks"


class Settings(ServiceSettings):
    """The variables of queue."""

    watch: float = variable(
        "QUEUE_WATCH_SECONDS",
        default=600.0,
        rule="seconds without a recurrence after which a report is resolved, above 0 and at most 86400",
        gt=0,
        le=86400,
    )
    retry_seconds: str = variable(
        "QUEUE_RETRY_SECONDS",
        default=",".join(f"{seconds:g}" for seconds in leases.RETRY_SECONDS),
        rule="seconds before the second, third … try, separated by commas; after the last there is none",
        remedy="leave it out for 30,120,300",
        pattern=r"^[0-9]{1,5}(\.[0-9]{1,3})?(,[0-9]{1,5}(\.[0-9]{1,3})?){0,19}$",
    )
    stranded: float = variable(
        "QUEUE_STRANDED_SECONDS",
        default=3600.0,
        rule="seconds without a worker for its tools after which a task goes to a person, 1 to 2592000",
        ge=1,
        le=2_592_000,
    )
    new_kinds: int = variable(
        "QUEUE_NEW_KINDS_PER_HOUR",
        default=50,
        rule="reports a plugin's new kinds of errors may make within an hour before one holds the rest, 1 to 10000",
        ge=1,
        le=10_000,
    )
    strategies: Path = variable(
        "QUEUE_STRATEGIES",
        default=Path(__file__).resolve().parent / "strategies.toml",
        rule="file with types, patterns and strategies (TOML)",
        remedy="leave it out for the one that comes along",
    )
    model_url: HttpUrl = variable(
        "QUEUE_MODEL_URL",
        default="",
        rule="an OpenAI-compatible endpoint that answers POST /chat/completions below it; empty for none",
        remedy="for example https://models.example.com/v1",
    )
    model_token: str = variable(
        "QUEUE_MODEL_TOKEN",
        default="",
        rule="bearer token for the model",
        remedy="ask the operator of the endpoint",
        secret=True,
    )
    model_name: str = variable(
        "QUEUE_MODEL_NAME", default="default", rule="the model to ask", remedy="name one the endpoint offers"
    )
    model_timeout: float = variable(
        "QUEUE_MODEL_TIMEOUT_SECONDS",
        default=10.0,
        rule="seconds the model may take in all, above 0 and at most 60",
        gt=0,
        le=60,
    )

    @property
    def delays(self) -> tuple[float, ...]:
        """Seconds before each further try."""
        return tuple(float(part) for part in self.retry_seconds.split(","))


def _nothing() -> None:
    return


@dataclass
class ServiceContext(SharedContext):
    """Database, bus, clock, the catalogue of strategies, and caches; queue calls no sibling."""

    settings: Settings
    catalogue: Catalogue
    model: ModelClient | None = None
    chance: random.Random = field(default_factory=random.Random)
    # Begins the next round of triage at once.
    nudge_triage: Callable[[], None] = _nothing
    draining: Callable[[], bool] = lambda: False
    toolsets: ToolsetCache = field(init=False)
    # While it was away nobody could ask.
    since: float = field(init=False)

    def __post_init__(self) -> None:
        """Tool sets are read when first needed."""
        self.since = self.clock.monotonic()
        self.toolsets = ToolsetCache(self.clock)

    def wake_claims(self) -> None:
        """Wakes the claims that wait for tasks in this process."""
        self.database.signal(TASKS)
