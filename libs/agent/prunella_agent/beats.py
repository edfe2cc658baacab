"""Makes beats: at the interval the plane asks for, each second from a switch to its commit, at once on a change.

Rule: a beat says what is true now; its counters are cumulative since the supervisor's boot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prunella.v1 import agent_pb2 as pb
from prunella_agent.clock import Clock
from prunella_agent.configurations import DigestCache
from prunella_agent.plugin_process import Health, PluginProcess
from prunella_agent.session import Session
from prunella_agent.slot_switch import SlotSwitch
from prunella_agent.telemetry import Telemetry

PROBATION_BEAT_SECONDS = 1.0
HEALTH = {
    Health.STARTING: pb.HEALTH_STARTING,
    Health.HEALTHY: pb.HEALTH_HEALTHY,
    Health.UNHEALTHY: pb.HEALTH_UNHEALTHY,
    Health.DOWN: pb.HEALTH_DOWN,
}


class Beats:
    """Puts beats together and hands them to the session."""

    def __init__(
        self,
        *,
        session: Session,
        telemetry: Telemetry,
        plugin: PluginProcess,
        switch: SlotSwitch,
        clock: Clock,
        environment: Mapping[str, str],
        configs: DigestCache,
        on_beat: Callable[[pb.Beat], None],
    ) -> None:
        self._session, self._telemetry, self._plugin, self._switch = session, telemetry, plugin, switch
        self._clock = clock
        self._environment = environment
        self._configs = configs
        self._on_beat = on_beat
        self._samples: tuple[str, ...] = ()
        self._last = 0.0

    @property
    def interval(self) -> float:
        """Seconds to the next beat, when nothing changes."""
        interval = self._session.beat_interval
        return min(interval, PROBATION_BEAT_SECONDS) if self._switch.in_probation else interval

    def send(self) -> None:
        """Sends one beat now."""
        self._telemetry.drain()
        totals, reported = self._telemetry.totals, self._switch.reported
        beat = pb.Beat(
            errors=totals.total("errors"),
            webhook_attempts=totals.total("attempts"),
            webhook_failures=totals.total("failures"),
            signature_failures=totals.total("signature_failures"),
            release=reported.release if reported else "",
            generation=reported.generation if reported else 0,
            digest=reported.digest if reported else "",
            config_digest=self._configs.digest(reported.config) if reported else "",
            environment=self._environment,
            health=HEALTH[self._plugin.health],
            numbers=totals.numbers,
            failing_inputs=totals.samples if totals.samples != self._samples else (),
        )
        self._samples = totals.samples
        beat.time.FromDatetime(self._clock.now())
        beat.uptime.FromNanoseconds(int(self._plugin.uptime * 1e9))
        self._last = self._clock.monotonic()
        self._session.beat(beat)
        self._on_beat(beat)

    async def run(self) -> None:
        """Beats until it is cancelled."""
        while True:
            left = self._last + self.interval - self._clock.monotonic()
            if left <= 0:
                self.send()
            else:
                # The interval may shrink while we wait.
                await self._clock.sleep(min(left, 0.25))
