"""Makes beats: at the interval the plane asks for, each second from a switch to its commit, at once on a change.

Rule: a beat says what is true now; its counters are cumulative since the supervisor's boot. Whatever goes wrong with
one beat, the next one comes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from prunella.v1 import agent_pb2 as pb
from prunella_agent import requirements
from prunella_agent.clock import Clock
from prunella_agent.conditions import Conditions
from prunella_agent.configurations import DigestCache
from prunella_agent.journal import Journal
from prunella_agent.plugin_process import Health, PluginProcess
from prunella_agent.session import Session
from prunella_agent.slot_switch import SlotSwitch
from prunella_agent.telemetry import Telemetry

log = logging.getLogger("prunella_agent.beats")

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
        journal: Journal,
        configs: DigestCache,
        conditions: Conditions,
        on_beat: Callable[[pb.Beat], None],
    ) -> None:
        self._session, self._telemetry, self._plugin, self._switch = session, telemetry, plugin, switch
        self._clock = clock
        self._environment, self._journal = environment, journal
        self._configs = configs
        self._conditions = conditions
        self._on_beat = on_beat
        self._samples: tuple[str, ...] = ()
        self._last = 0.0

    @property
    def age(self) -> float:
        """Seconds since the last beat."""
        return self._clock.monotonic() - self._last

    @property
    def interval(self) -> float:
        """Seconds to the next beat, when nothing changes."""
        interval = self._session.beat_interval
        return min(interval, PROBATION_BEAT_SECONDS) if self._switch.in_probation else interval

    def send(self) -> None:
        """Sends one beat now."""
        self._last = self._clock.monotonic()
        self._telemetry.drain()
        self._plugin.look_at_host()
        self._conditions.recheck()
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
        self._add_requirements(beat)
        self._samples = totals.samples
        beat.time.FromDatetime(self._clock.now())
        beat.uptime.FromNanoseconds(int(self._plugin.uptime * 1e9))
        # First what may fail on this host, so that the beat itself says so.
        self._on_beat(beat)
        beat.conditions.extend(self._conditions.messages())
        self._session.beat(beat)

    def _add_requirements(self, beat: pb.Beat) -> None:
        state, reported = self._journal.state, self._switch.reported
        if reported and reported.requires:
            beat.requires.update(reported.requires)
        if state.refused and requirements.unmet(state.refused["requires"], self._environment):
            beat.refused.release = state.refused["release"]
            beat.refused.requires.update(state.refused["requires"])

    async def run(self) -> None:
        """Beats until it is cancelled."""
        while True:
            left = self._last + self.interval - self._clock.monotonic()
            if left <= 0:
                try:
                    self.send()
                except Exception:
                    log.exception("a beat could not be made; the next one is in %.0f s", self.interval)
            else:
                # The interval may shrink while we wait.
                await self._clock.sleep(min(left, 0.25))
