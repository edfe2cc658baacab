"""Says at the start of the service what its sandbox can give a release.

Rule: found out beside everything else, so that nothing waits for it; whoever needs it before asks the runner, and
gets the same answer.
"""

import asyncio
import logging

from libs.common.cancellation import cancel_and_wait
from libs.common.telemetry import gauge
from services.patcher.staging import Runner

log = logging.getLogger(__name__)

LEVEL = gauge("sandbox_isolation", "What the sandbox can give a release: 1 none, 2 a separate user, 3 namespaces")


class SandboxReport:
    """Looks once and tells."""

    def __init__(self, runner: Runner) -> None:
        self.name = "sandbox report"
        self.runner = runner
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._tell(), name=self.name)

    async def stop(self) -> None:
        """Looks no further."""
        if self._task:
            await cancel_and_wait([self._task])

    async def _tell(self) -> None:
        host = await self.runner.host()
        LEVEL.set(int(host.isolation))
        lacks = f"; it lacks {', '.join(host.missing)}: {host.remedy.rstrip(',')}" if host.missing else ""
        tell = log.warning if host.missing else log.info
        tell("%s gives isolation %s%s", host.where, host.isolation.word, lacks)
