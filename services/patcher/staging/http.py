"""Asks a staging runner elsewhere: `POST {STAGING_RUNNER_URL}/run` with a bearer token.

Rule: the answer is bounded in time and size, has to be JSON of the known shape, and must carry the request's nonce.
Anything else, a redirect included, is no result. A runner that is busy answers 429 or 503 and is asked again later;
what it waits does not count as time of the run. It stands on a machine of its own, so a release there is apart from
everything of ours unless the answer names a lower `isolation`.
"""

import asyncio
import contextlib
import hashlib
import json

import httpx2

from libs.common.proxies import may_be_proxied
from services.patcher.attempt import Staged
from services.patcher.policy import Isolation
from services.patcher.staging import Request, SandboxHost, StagingLostError
from services.patcher.staging.local import LONGEST_ANSWER, question, read

BUSY = (429, 503)
LONGEST_PAUSE = 30.0


class RunnerBusy(Exception):  # noqa: N818 - it is no error
    """The runner has no free sandbox; `pause` is for how many seconds it asks us to wait."""

    def __init__(self, pause: float) -> None:
        super().__init__(f"the staging runner is busy for {pause:g} s")
        self.pause = pause


class HttpRunner:
    """Proves releases at a runner reachable over HTTP."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self.token = token

    @property
    def environment(self) -> str:
        """The runner's address, without what may be secret in it."""
        return f"http {hashlib.sha256(self.url.encode()).hexdigest()[:16]}"

    async def host(self) -> SandboxHost:
        """A machine of its own."""
        return SandboxHost(Isolation.NAMESPACES, "the staging runner")

    def turn(self) -> contextlib.AbstractAsyncContextManager[object]:
        """The runner has a queue of its own."""
        return contextlib.nullcontext()

    async def run(self, request: Request) -> Staged:
        """The runner's result, however long it is busy. Raises StagingLostError when it gave none that counts."""
        while True:
            try:
                return await self._run(request)
            except RunnerBusy as busy:
                await asyncio.sleep(busy.pause)

    async def _run(self, request: Request) -> Staged:
        body = json.loads(question(request)) | {
            "package": request.manifest.package,
            "version": request.manifest.version,
            "digest": request.manifest.digest,
            "attempt": request.attempt,
            "plugin": request.plugin,
            "merchant": request.merchant,
        }
        try:
            async with asyncio.timeout(request.seconds):
                answer = await self._ask(body)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as error:
            raise StagingLostError(
                f"the staging runner did not answer: {str(error) or type(error).__name__}"
            ) from error
        result = read(answer, request.nonce, apart=True)
        if Isolation.of(result.isolation) < request.min_isolation:
            raise StagingLostError(
                f"the staging runner says isolation {result.isolation}, {request.min_isolation.word} is asked for"
            )
        return result

    async def _ask(self, body: dict[str, object]) -> bytes:
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        async with (
            httpx2.AsyncClient(follow_redirects=False, timeout=None, trust_env=may_be_proxied(self.url)) as client,
            client.stream("POST", f"{self.url}/run", json=body, headers=headers) as response,
        ):
            if response.status_code in BUSY:
                raise RunnerBusy(_pause(response.headers.get("retry-after", "")))
            if response.status_code != 200:
                raise StagingLostError(f"the staging runner answered {response.status_code}")
            kind = response.headers.get("content-type", "").partition(";")[0].strip()
            if kind != "application/json":
                raise StagingLostError(f"the staging runner answered {kind or 'something'} instead of JSON")
            answer = b""
            async for piece in response.aiter_bytes():
                answer += piece
                if len(answer) > LONGEST_ANSWER:
                    raise StagingLostError(f"the staging runner wrote more than {LONGEST_ANSWER} bytes")
            return answer


def _pause(text: str) -> float:
    """Seconds in a Retry-After; a second for what cannot be read."""
    try:
        return min(max(float(text), 0.1), LONGEST_PAUSE)
    except ValueError:
        return 1.0
