"""The client of the external SIRA: one bounded question, one checked answer.

Rule: everything has a limit (time in all, 256 KiB of body, no redirects, no compression, no proxy from the
environment) and every answer is checked before it counts: status 200, JSON by its content type, the fields below
with their bounds. What fails is one failure for the breaker. The question holds what is needed to choose a remedy;
never the inputs that failed, never our token beyond the header.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import httpx2
import msgspec

from libs.common.breaker import BreakerRule, BreakerState, Guarded
from libs.common.clock import Clock
from libs.common.errors import Unavailable
from services.decider.decision import Opinion, Situation
from services.decider.explanation import printable

PATH = "/api/sira/decide"
BREAKER = "sira"
# A decision waits for every failure, so few of them are enough.
RULE = BreakerRule(window=120.0, volume=3, threshold=0.5, open_for=30.0)
LARGEST = 256 * 1024
LONGEST_WHY = 500


class Answer(msgspec.Struct):
    """What SIRA must answer; other fields are ignored."""

    action: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]
    patch_version: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    explanation: Annotated[str, msgspec.Meta(max_length=4000)] | None = None
    model_version: Annotated[str, msgspec.Meta(max_length=100)] | None = None


def question(merchant: str, plugin: str, situation: Situation, history: Mapping[str, int]) -> dict[str, Any]:
    """The body of the question, with the field names SIRA knows."""
    return {
        "merchant_id": merchant,
        "plugin_id": plugin,
        "telemetry": {
            **situation.figures,
            "summary": situation.summary,
            "package": situation.package,
            "environment": situation.environment,
            "config_digest": situation.config_digest,
        },
        "severity": situation.severity,
        "incident_type": situation.symptom,
        "current_version": situation.release,
        "historical_data": {
            **history,
            "round": situation.round,
            "tried": [
                {"action": tried.action, "version": tried.release, "outcome": tried.outcome}
                for tried in situation.tried
            ],
        },
    }


def read_answer(body: bytes) -> Opinion:
    """The opinion in an answer. Raises Unavailable (SIRA_BAD_ANSWER) when it does not fit."""
    try:
        answer = msgspec.json.decode(body, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unusable("SIRA_BAD_ANSWER", f"SIRA's answer does not fit: {printable(str(error), 200)}") from error
    return Opinion(
        action=answer.action,
        release=answer.patch_version or "",
        confidence=answer.confidence,
        why=printable(answer.explanation or "", LONGEST_WHY),
        model=printable(answer.model_version or "", 100),
    )


@dataclass(frozen=True)
class Change:
    """The breaker changed its state."""

    breaker: str
    before: str
    after: str


class Sira:
    """One SIRA behind a breaker. `timeout` bounds a whole question, body included; in seconds."""

    def __init__(self, url: str, token: str, timeout: float, clock: Clock) -> None:
        self.url = url.rstrip("/") + PATH
        self.timeout = timeout
        self._token = token
        self._clock = clock
        self._changes: deque[Change] = deque(maxlen=100)
        self._state = BreakerState.CLOSED
        self._guarded = Guarded(BREAKER, clock, RULE, on_change=self._changed)
        self._client = httpx2.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=httpx2.Timeout(timeout),
            limits=httpx2.Limits(max_connections=8, max_keepalive_connections=2),
        )

    def available(self) -> bool:
        """Whether the breaker would let a question through now."""
        return self._guarded.breaker.retry_after(self._clock.monotonic()) == 0

    def changes(self) -> list[Change]:
        """The breaker's changes since this was asked last."""
        found = list(self._changes)
        self._changes.clear()
        return found

    async def ask(self, body: Mapping[str, Any], request: str) -> Opinion:
        """SIRA's opinion. `request` is the same in every repeat. Raises Unavailable whatever goes wrong."""

        async def work() -> Opinion:
            return read_answer(await self._post(msgspec.json.encode(body), request))

        try:
            return await self._guarded.call(work, timeout=self.timeout)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise _unusable("SIRA_TIMEOUT", f"SIRA gave no whole answer within {self.timeout:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise _unusable("SIRA_UNREACHABLE", f"SIRA cannot be asked: {type(error).__name__}") from error

    def _changed(self, name: str, state: BreakerState) -> None:
        self._changes.append(Change(name, self._state.value, state.value))
        self._state = state

    async def _post(self, body: bytes, request: str) -> bytes:
        headers = {"content-type": "application/json", "accept-encoding": "identity", "x-request-id": request}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        async with self._client.stream("POST", self.url, content=body, headers=headers) as response:
            if response.status_code != 200:
                raise _unusable("SIRA_STATUS", f"SIRA answered with status {response.status_code}")
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise _unusable("SIRA_CONTENT_TYPE", f"SIRA answered with {printable(kind, 60) or 'no content type'}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _unusable("SIRA_ENCODING", "SIRA compressed its answer though it was asked not to")
            parts, size = [], 0
            async for part in response.aiter_raw():
                size += len(part)
                if size > LARGEST:
                    raise _unusable("SIRA_TOO_LARGE", f"SIRA's answer is larger than {LARGEST} bytes")
                parts.append(part)
            return b"".join(parts)

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.aclose()


def _unusable(reason: str, message: str) -> Unavailable:
    return Unavailable(message, reason=reason)
