"""Plugins as callers see them, and what they reported."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from libs.common import names
from libs.common.facts import fact
from prunella.v1 import agent_pb2, events_pb2, ingest_pb2
from prunella.v1.events_pb2 import Event
from services.ingest import windows
from services.ingest.anomaly import scoring
from services.ingest.beat import Health
from services.ingest.wire.timestamps import seconds_stamp, span, stamp

SOURCE = "ingest"


def resource(row: Any, now: datetime, fresh: float) -> ingest_pb2.Plugin:
    """A plugin from its view; `fresh` seconds without a beat mean that its session is gone, whatever the row says."""
    counted = windows.total(windows.since(windows.read(bytes(row.windows)), row.count_from_time))
    same = (
        "package", "merchant", "label", "state", "release", "generation", "digest", "config_digest", "beats",
        "expected_config_digest", "environment", "numbers", "capabilities", "open_incidents", "away",
    )  # fmt: skip
    return ingest_pb2.Plugin(
        name=names.plugin(str(row.id)),
        health=agent_pb2.Health.ValueType(row.health),
        connected=bool(row.connected and now.timestamp() - row.last_beat_time < fresh),
        last_beat_time=seconds_stamp(row.last_beat_time) if row.beats else None,
        back_by_time=seconds_stamp(row.back_by_time) if row.away and row.back_by_time else None,
        enroll_time=stamp(row.enroll_time),
        webhook_fail_rate=counted.failures / counted.attempts if counted.attempts else 0.0,
        errors_in_window=counted.errors,
        clock_skew=None if row.clock_skew is None else span(row.clock_skew),
        **{name: getattr(row, name) for name in same},
    )


def sums(counted: Iterable[windows.Window], plugins: int, *, more_beats: int = 0) -> ingest_pb2.TelemetrySums:
    """Counts over windows of so many plugins; `more_beats` belong to them and ended no window of theirs."""
    total = windows.total(counted)
    return ingest_pb2.TelemetrySums(
        beats=total.beats + more_beats,
        errors=total.errors,
        webhook_attempts=total.attempts,
        webhook_failures=total.failures,
        duration=span(total.duration),
        plugins=plugins,
        signature_failures=total.signature_failures,
    )


def level(name: str, usual: scoring.Usual, present: float) -> ingest_pb2.TelemetryLevel:
    """A named number beside what is usual of it."""
    return ingest_pb2.TelemetryLevel(name=name, usual=usual.value, present=present, spread=usual.spread)


def enrolled(plugin: str, merchant: str, package: str, release: str, label: str, replaces: str = "") -> Event:
    """plugin_enrolled."""
    made = events_pb2.PluginEnrolled(package=package, release=release, label=label)
    made.replaces = names.plugin(replaces) if replaces else ""
    reason = f"{label} joined with {package} {release}".rstrip()
    return fact(SOURCE, made, actor=names.plugin(plugin), reason=reason, plugin=plugin, merchant=merchant)


def health_changed(plugin: str, merchant: str, before: Health, after: Health, release: str, generation: int) -> Event:
    """plugin_health_changed."""
    old, new = before.name.lower(), after.name.lower()
    made = events_pb2.PluginHealthChanged(**{"from": old}, to=new, release=release, generation=generation)
    reason = f"health went from {old} to {new}"
    return fact(SOURCE, made, actor=names.plugin(plugin), reason=reason, plugin=plugin, merchant=merchant)


def quarantined(plugin: str, merchant: str, boots: Iterable[str]) -> Event:
    """plugin_quarantined."""
    made = events_pb2.PluginQuarantined(boot_ids=boots)
    reason = "two living agents use one identity; both are shut out until a person decides"
    return fact(SOURCE, made, reason=reason, plugin=plugin, merchant=merchant)


def quarantine_released(plugin: str, merchant: str, actor: str, reason: str) -> Event:
    """quarantine_released."""
    made = events_pb2.QuarantineReleased()
    return fact(SOURCE, made, actor=actor, reason=reason, plugin=plugin, merchant=merchant)


def retired(plugin: str, merchant: str, actor: str, reason: str, replaced_by: str = "") -> Event:
    """plugin_retired."""
    made = events_pb2.PluginRetired(replaced_by=replaced_by)
    return fact(SOURCE, made, actor=actor, reason=reason or "retired", plugin=plugin, merchant=merchant)
