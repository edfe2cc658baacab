"""One service outside of the plane that is asked by HTTP, behind a breaker: a bounded question, a bounded answer.

Rule: everything has a limit (time in all, 256 KiB of body, no redirects, no compression, no proxy from the environment)
and an answer counts only with status 200 and JSON by its content type; what it says is for the caller to check, inside
the breaker. Whatever goes wrong is Unavailable, with a reason that begins with `word`, and one failure for the breaker.
What a refusal says is in its message: the beginning of its body, cleaned, without our token and what looks like a key.
Our token goes into one header and nowhere else, and no other header than those in `SENT` leaves. The limits are those
of `client`, so they hold for whoever speaks through it; an SDK calls through it inside `guarded`.
"""

from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TypeVar, cast

import httpx2

from libs.common.breaker import BreakerRule, BreakerState, Guarded
from libs.common.clock import Clock
from libs.common.database import Database, Transaction
from libs.common.errors import Unavailable
from libs.common.facts import fact
from libs.common.redaction import redacted_text
from libs.common.text import clean_line
from prunella.v1.events_pb2 import BreakerChanged

T = TypeVar("T")

LARGEST = 256 * 1024
SENT = frozenset(
    "accept accept-encoding authorization connection content-length content-type host user-agent x-request-id".split()  # noqa: SIM905
)
# Something waits for every failure, so few of them are enough.
RULE = BreakerRule(window=120.0, volume=3, threshold=0.5, open_for=30.0)
_LONGEST_KIND = 60
# Bytes of a refusal that are read, and characters of it that are shown.
REFUSAL_BYTES = 4096
REFUSAL_SHOWN = 300


class Rejected(Unavailable):
    """An answer with another status than 200; `status`, and `body` as far as it was read, cleaned and redacted."""

    status = 0
    body = ""


class ExternalHttp:
    """One service at `url`. `name` is for people, `word` begins reasons (SIRA → SIRA_TIMEOUT); its lower case names the
    breaker. `timeout` bounds a whole question, body included; in seconds.
    """

    def __init__(self, name: str, word: str, url: str, token: str, timeout: float, clock: Clock) -> None:
        self.url = url
        self.timeout = timeout
        self._name = name
        self._word = word
        self._token = token
        self._clock = clock
        self._changes: deque[tuple[str, str]] = deque(maxlen=100)
        self._state = BreakerState.CLOSED
        self._guarded = Guarded(word.lower(), clock, RULE, on_change=self._changed)
        self.client = httpx2.AsyncClient(
            transport=_Bounded(self),
            headers={"accept-encoding": "identity"},
            follow_redirects=False,
            trust_env=False,
            timeout=httpx2.Timeout(timeout),
        )

    def available(self) -> bool:
        """Whether the breaker would let a question through now."""
        return self._guarded.breaker.retry_after(self._clock.monotonic()) == 0

    async def record_changes(self, database: Database, source: str) -> None:
        """Records the breaker's changes since the last call as facts of the service `source`."""
        recorded = list(self._changes)
        self._changes.clear()

        async def work(tx: Transaction) -> None:
            for before, after in recorded:
                change = BreakerChanged(breaker=self._guarded.name, **{"from": before, "to": after})
                reason = f"the breaker for {self._name} is {after} after being {before}"
                tx.record(fact(source, change, reason=reason))

        if recorded:
            await database.transaction(work)

    async def ask(self, body: bytes, request: str, read: Callable[[bytes], T]) -> T:
        """What `read` makes of the answer to a JSON body. `request` is the same in every repeat.

        Raises Unavailable whatever goes wrong; `read` may raise it too.
        """

        headers = {"content-type": "application/json", "x-request-id": request}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"

        async def work() -> T:
            return read((await self.client.post(self.url, content=body, headers=headers)).content)

        return await self.guarded(work)

    async def guarded(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns, which speaks through `client`. Raises Unavailable whatever goes wrong on the way."""
        try:
            return await self._guarded.call(work, timeout=self.timeout)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise self.unusable("TIMEOUT", f"{self._name} gave no whole answer within {self.timeout:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise self.unusable("UNREACHABLE", f"{self._name} cannot be asked: {type(error).__name__}") from error

    def unusable(self, reason: str, message: str) -> Unavailable:
        """An answer that does not count."""
        return Unavailable(message, reason=f"{self._word}_{reason}")

    def _changed(self, _name: str, state: BreakerState) -> None:
        self._changes.append((self._state.value, state.value))
        self._state = state

    async def bounded(self, response: httpx2.Response) -> bytes:
        """The body of an answer that keeps to the rule. Raises Unavailable for any other."""
        if response.status_code != 200:
            raise await self._rejected(response)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            shown = "".join(sign if sign.isprintable() else " " for sign in kind[:_LONGEST_KIND])
            raise self.unusable("CONTENT_TYPE", f"{self._name} answered with {shown or 'no content type'}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self.unusable("ENCODING", f"{self._name} compressed its answer though it was asked not to")
        parts, size = [], 0
        async for part in cast("AsyncIterable[bytes]", response.stream):
            size += len(part)
            if size > LARGEST:
                raise self.unusable("TOO_LARGE", f"{self._name}'s answer is larger than {LARGEST} bytes")
            parts.append(part)
        return b"".join(parts)

    async def _rejected(self, response: httpx2.Response) -> Rejected:
        read = b""
        if response.headers.get("content-encoding", "identity") == "identity":
            async for part in cast("AsyncIterable[bytes]", response.stream):
                read += part
                if len(read) >= REFUSAL_BYTES:
                    break
        text = redacted_text(clean_line(read[:REFUSAL_BYTES].decode(errors="replace"), REFUSAL_BYTES), self._token)
        shown = f": {text[:REFUSAL_SHOWN]}" if text else ""
        rejected = Rejected(
            f"{self._name} answered with status {response.status_code}{shown}", reason=f"{self._word}_STATUS"
        )
        rejected.status, rejected.body = response.status_code, text
        return rejected

    async def close(self) -> None:
        """Closes every connection."""
        await self.client.aclose()


class _Bounded(httpx2.AsyncHTTPTransport):
    """Sends no more than is allowed, and reads an answer whole, within its bounds, or refuses it."""

    def __init__(self, service: ExternalHttp) -> None:
        limits = httpx2.Limits(max_connections=8, max_keepalive_connections=2)
        super().__init__(limits=limits, trust_env=False)
        self._service = service

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer with its body. Raises Unavailable for one that does not count."""
        for name in set(request.headers) - SENT:
            del request.headers[name]
        response = await super().handle_async_request(request)
        try:
            body = await self._service.bounded(response)
        finally:
            await response.aclose()
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=body)
