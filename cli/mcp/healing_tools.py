"""Tools that read the loop: plugins, incidents, decisions, timeline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from pydantic import Field

from cli import id_lookup, listings
from cli.formatting import action_summary, enum_label
from cli.mcp.access import PlaneConnection, tool
from cli.mcp.tool_results import Candidate, Decision, Entry, Explanation, Incident, Plugin, time, untrusted
from libs.common.errors import Invalid
from prunella.v1 import events_pb2
from prunella.v1.agent_pb2 import Health

PluginFilter = Annotated[str, Field(description="Only of this plugin: label or id.")]
Limit = Annotated[int, Field(ge=1, le=200, description="At most so many.")]


def number(enum: Any, text: str, field: str) -> int:
    """The value of an enum by its lower-case word. Raises Invalid."""
    known = {enum_label(enum, value): int(value) for value in enum.values() if value}
    if text and text not in known:
        raise Invalid(f"{field} must be one of {', '.join(known)}, not {text!r}", reason="UNKNOWN_WORD", field=field)
    return known.get(text, 0)


class HealingTools:
    """Reads ingest, decider and ops."""

    def __init__(self, connection: PlaneConnection) -> None:
        self.connection = connection

    def tools(self) -> list[Callable[..., Awaitable[Any]]]:
        """Every tool of this file."""
        return [
            self.list_plugins, self.get_plugin, self.list_incidents, self.get_incident, self.list_decisions,
            self.explain_decision, self.list_timeline,
        ]  # fmt: skip

    @tool
    async def list_plugins(
        self,
        package: Annotated[str, Field(description="Only of this package.")] = "",
        merchant: Annotated[str, Field(description="Only at this merchant.")] = "",
        health: Annotated[str, Field(description="Only healthy, unhealthy, down or starting.")] = "",
        limit: Limit = 50,
    ) -> list[Plugin]:
        """The fleet: which plugins there are, what they run, and how they are."""
        filters = {"package": package, "merchant": merchant, "health": number(Health, health, "health")}
        return [_plugin(one) async for one in listings.plugins(self.connection.plane(), limit, **filters)]

    @tool
    async def get_plugin(self, plugin: Annotated[str, Field(description="Label or id.")]) -> Plugin:
        """One plugin."""
        plane = self.connection.plane()
        name = await id_lookup.resource(plane, "plugins", plugin)
        return _plugin((await plane.call("ingest.GetPlugin", name=name)).plugin)

    @tool
    async def list_incidents(
        self,
        plugin: PluginFilter = "",
        state: Annotated[
            str, Field(description="Only open, in_progress, escalated, flapping, mitigated or closed.")
        ] = "",
        type: Annotated[str, Field(description="Only of this type, such as webhook_fail_rate.")] = "",  # noqa: A002
        severity: Annotated[str, Field(description="Only low, medium, high or critical.")] = "",
        limit: Limit = 50,
    ) -> list[Incident]:
        """What is or was wrong with plugins, newest first."""
        plane = self.connection.plane()
        wanted = number(events_pb2.Severity, severity, "severity")
        filters = await id_lookup.filters(plane, plugin=plugin, state=state, type=type, severity=wanted)
        return [_incident(one) async for one in listings.incidents(plane, limit, **filters)]

    @tool
    async def get_incident(self, incident: Annotated[str, Field(description="Its id, or the end of it.")]) -> Incident:
        """One incident with what was tried for it."""
        plane = self.connection.plane()
        name = await id_lookup.resource(plane, "incidents", incident)
        return _incident((await plane.call("ingest.GetIncident", name=name)).incident)

    @tool
    async def list_decisions(
        self,
        incident: Annotated[str, Field(description="Only for this incident.")] = "",
        plugin: PluginFilter = "",
        limit: Limit = 20,
    ) -> list[Decision]:
        """Which remedies were chosen, newest first, with every candidate."""
        plane = self.connection.plane()
        filters = await id_lookup.filters(plane, incident=incident, plugin=plugin)
        return [_decision(one) async for one in listings.decisions(plane, limit, **filters)]

    @tool
    async def explain_decision(
        self, decision: Annotated[str, Field(description="Its id, or the end of it.")]
    ) -> Explanation:
        """Why a remedy was chosen, sentence by sentence."""
        plane = self.connection.plane()
        name = await id_lookup.resource(plane, "decisions", decision)
        answer = await plane.call("decider.ExplainDecision", name=name)
        return Explanation(
            decision=_decision(answer.decision), reasoning=[untrusted(line) for line in answer.reasoning]
        )

    @tool
    async def list_timeline(
        self,
        plugin: PluginFilter = "",
        incident: Annotated[str, Field(description="Only about this incident.")] = "",
        facts: Annotated[list[str] | None, Field(description="Only these facts, such as incident_opened.")] = None,
        limit: Limit = 50,
    ) -> list[Entry]:
        """Everything that happened, newest first."""
        plane = self.connection.plane()
        filters = await id_lookup.filters(plane, plugin=plugin, incident=incident, facts=facts)
        return [_entry(one) async for one in listings.entries(plane, limit, **filters)]


def _plugin(one: Any) -> Plugin:
    return Plugin(
        id=one.name.rpartition("/")[2], label=one.label, package=one.package, release=one.release,
        merchant=one.merchant, health=enum_label(Health, one.health), state=one.state, connected=one.connected,
        away=one.away, last_beat_time=time(one.last_beat_time), webhook_fail_rate=one.webhook_fail_rate,
        errors_in_window=one.errors_in_window,
        open_incidents=[name.rpartition("/")[2] for name in one.open_incidents],
        environment=untrusted(", ".join(f"{name}={value}" for name, value in sorted(one.environment.items()))),
    )  # fmt: skip


def _incident(one: Any) -> Incident:
    tried = [f"{action_summary(entry, events_pb2.Action)}: {entry.outcome}" for entry in one.tried]
    return Incident(
        id=one.name.rpartition("/")[2], plugin=one.plugin, package=one.package, release=one.release, type=one.type,
        severity=enum_label(events_pb2.Severity, one.severity), state=one.state, round=one.round,
        evidence=untrusted(one.evidence.summary),
        failing_inputs=[untrusted(text) for text in one.evidence.failing_inputs],
        tried=tried, resolution=untrusted(one.resolution), open_time=time(one.open_time), end_time=time(one.end_time),
        act_by_time=time(one.act_by_time), trace_id=one.trace_id,
    )  # fmt: skip


def _decision(one: Any) -> Decision:
    candidates = [
        Candidate(
            action=enum_label(events_pb2.Action, candidate.action), release=candidate.release, origin=candidate.origin,
            score=candidate.score, confidence=candidate.confidence, propensity=candidate.propensity,
            because=untrusted(candidate.explanation), excluded=candidate.excluded,
        )
        for candidate in one.candidates
    ]  # fmt: skip
    return Decision(
        id=one.name.rpartition("/")[2], incident=one.incident, plugin=one.plugin, round=one.round, state=one.state,
        action=enum_label(events_pb2.Action, one.action), release=one.release, confidence=one.confidence,
        origin=one.origin, because=untrusted(one.explanation), candidates=candidates, decide_time=time(one.decide_time),
    )  # fmt: skip


def _entry(one: Any) -> Entry:
    event = one.event
    return Entry(
        time=time(event.time), fact=one.fact, plugin=event.plugin, incident=event.incident, actor=event.actor,
        headline=untrusted(one.headline), reason=untrusted(event.reason),
    )  # fmt: skip
