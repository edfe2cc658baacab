"""What every door of the patcher is given: settings, database, bus, time, pinned keys, staging runner and clients."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from weakref import WeakValueDictionary

from libs.common.errors import Invalid
from libs.common.runtime.assembly import SharedContext
from libs.common.settings import HttpUrl, ServiceSettings, variable
from prunella.v1 import ingest_pb2_grpc
from services.patcher.attempt import Staged
from services.patcher.staging import Runner

SCHEMA = "patcher"
MOST_FAILURES = 256


class Settings(ServiceSettings):
    """The patcher's own variables."""

    staging_url: HttpUrl = variable(
        "STAGING_RUNNER_URL",
        default="",
        rule="where a staging runner answers POST /run; empty for the sandbox on this machine",
        remedy="for example https://staging.example.com",
    )
    staging_token: str = variable(
        "STAGING_RUNNER_TOKEN",
        default="",
        rule="bearer token for the staging runner",
        remedy="ask its operator",
        secret=True,
    )
    sandboxes: int = variable(
        "PATCHER_SANDBOXES",
        default=2,
        rule="releases that prove themselves on this machine at the same time, 1 to 64",
        remedy="leave it out for 2; the others wait for their turn",
        ge=1,
        le=64,
    )
    dead_man: float = variable(
        "PATCHER_DEAD_MAN_SECONDS",
        default=100.0,
        rule="seconds after a switch at which an agent without a commit reverts by itself, 3 to 3600",
        remedy="leave it out for 100, the time the default policy gives a verdict and 10 to commit",
        ge=3,
        le=3600,
    )
    release_keys: str = variable(
        "PATCHER_RELEASE_KEYS",
        default="",
        rule="two hexadecimal Ed25519 public keys that sign releases, separated by a comma",
        remedy="give the same two keys as INGEST_RELEASE_KEYS",
    )
    probation_beats: int = variable(
        "PATCHER_PROBATION_BEATS",
        default=5,
        rule="beats of a new generation a verdict needs, 1 to 1000",
        ge=1,
        le=1000,
    )
    watch: float = variable(
        "PATCHER_WATCH_SECONDS",
        default=86_400.0,
        rule="seconds for which a remedy that was committed on low evidence is watched for proof, 1 to 2592000",
        remedy="leave it out for 86400, a day",
        ge=1,
        le=2_592_000,
    )


def pinned_keys(text: str) -> tuple[bytes, ...]:
    """The raw keys in PATCHER_RELEASE_KEYS; none when it is empty. Raises Invalid."""
    texts = [key_text.strip() for key_text in text.split(",") if key_text.strip()]
    try:
        keys = tuple(bytes.fromhex(key_text) for key_text in texts)
    except ValueError:
        keys = ()
    if texts and (len(set(keys)) != 2 or any(len(key) != 32 for key in keys)):
        raise Invalid(
            "PATCHER_RELEASE_KEYS must hold two different keys of 64 hexadecimal digits, separated by a comma",
            reason="RELEASE_KEYS",
            field="PATCHER_RELEASE_KEYS",
        )
    return keys


@dataclass
class ServiceContext(SharedContext):
    """The patcher's database, bus, time, pinned keys, staging runner and clients."""

    settings: Settings
    keys: tuple[bytes, ...]
    runner: Runner
    ingest: ingest_pb2_grpc.IngestServiceAsyncStub
    # When a package's plugins were last counted (monotonic), and when probation was last looked at.
    fleet_counted: dict[str, float] = field(default_factory=dict)
    judged_times: dict[str, datetime] = field(default_factory=dict)
    # Plugins that were not connected when last looked at, and since when. Bounded by the fleet.
    absent_since: dict[str, datetime] = field(default_factory=dict)
    _proving: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = field(default_factory=WeakValueDictionary)

    _failures: dict[tuple[str, ...], tuple[datetime, Staged]] = field(default_factory=dict)

    def proving(self, what: tuple[str, ...]) -> asyncio.Lock:
        """The lock under which one artifact is proven against one suite; who comes later finds the result."""
        return self._proving.setdefault(what, asyncio.Lock())

    def remember_failure(self, what: tuple[str, ...], result: Staged) -> None:
        """Keeps a failed proof for the attempts that were waiting for it; the oldest make room."""
        self._failures.pop(what, None)
        self._failures[what] = self.clock.now(), result
        while len(self._failures) > MOST_FAILURES:
            del self._failures[next(iter(self._failures))]

    def failure_while_waiting(self, what: tuple[str, ...], since: datetime) -> Staged | None:
        """The failed proof that ended after `since`; None when there was none, so that it is proven anew."""
        known = self._failures.get(what)
        return known[1] if known and known[0] > since else None
