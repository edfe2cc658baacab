"""Asks a staging runner elsewhere: `POST {STAGING_RUNNER_URL}/run` with a bearer token.

Rule: the answer is bounded in time and size, has to be JSON of the known shape, and must carry the request's nonce.
Anything else, a redirect included, is no result.
"""

import asyncio
import hashlib
import json

import httpx2

from services.patcher.attempt import Staged
from services.patcher.staging import Request, StagingLostError
from services.patcher.staging.local import LONGEST_ANSWER, question, read


class HttpRunner:
    """Proves releases at a runner reachable over HTTP."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self.token = token

    @property
    def environment(self) -> str:
        """The runner's address, without what may be secret in it."""
        return f"http {hashlib.sha256(self.url.encode()).hexdigest()[:16]}"

    async def run(self, request: Request) -> Staged:
        """The runner's result. Raises StagingLostError when it gave none that counts."""
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
        return read(answer, request.nonce)

    async def _ask(self, body: dict[str, object]) -> bytes:
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        async with (
            httpx2.AsyncClient(follow_redirects=False, timeout=None) as client,
            client.stream("POST", f"{self.url}/run", json=body, headers=headers) as response,
        ):
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
