"""The dashboards, described once: `python -m deploy.observability.dashboards` writes grafana/*.json from this.

Rule: a panel is one question with its unit; whoever opens a dashboard at night reads it from top to bottom: first what
is wrong, then how much there is, then how long it takes. The JSON is what Grafana imports; nobody edits it by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).with_name("grafana")
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
WIDTH, HEIGHT, COLUMNS = 8, 7, 3
STAT_WIDTH, STAT_HEIGHT = 4, 4
RATE: Final = "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    """One question: queries by legend, a unit of Grafana's, and from which value on it is red."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    red: float | None = None


@dataclass(frozen=True)
class Dashboard:
    """`stats` stand in the first row as single numbers; `panels` below as lines over time."""

    uid: str
    title: str
    meaning: str
    stats: Sequence[Panel]
    panels: Sequence[Panel] = field(default=())


def rate(metric: str, *by: str, where: str = "") -> str:
    """How often per second, by some labels."""
    chosen = f"{metric}{{{where}}}" if where else metric
    return f"sum by ({', '.join(by)}) (rate({chosen}[{RATE}]))" if by else f"sum(rate({chosen}[{RATE}]))"


def quantile(share: float, metric: str, *by: str) -> str:
    """The value below which `share` of a histogram's observations lie."""
    labels = ", ".join(("le", *by))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[{RATE}])))"


def quantiles(metric: str) -> dict[str, str]:
    """Median and 99th percentile."""
    return {"p50": quantile(0.5, metric), "p99": quantile(0.99, metric)}


LOOP = Dashboard(
    "prunella-loop",
    "Prunella: the loop",
    "From the first bad heartbeat to a verdict: what was found, decided, tried, and how it ended.",
    (
        Panel(
            "could not be taken back, 24 h",
            {"": 'sum(increase(prunella_attempts_ended_total{state="rollback_failed"}[24h])) or vector(0)'},
            red=0.5,
        ),
        Panel("storms, 24 h", {"": "sum(increase(prunella_storms_total[24h])) or vector(0)"}, red=0.5),
        Panel("incidents, 1 h", {"": "sum(increase(prunella_incidents_opened_total[1h])) or vector(0)"}),
        Panel(
            "healed attempts, 1 h",
            {"": 'sum(increase(prunella_attempts_ended_total{state="success"}[1h])) or vector(0)'},
        ),
        Panel("loop: worst lag", {"": "max(prunella_consumer_lag_seconds)"}, "s", red=30),
        Panel(
            "kill switches changed, 24 h", {"": "sum(increase(prunella_kill_switch_changes_total[24h])) or vector(0)"}
        ),
    ),
    (
        Panel("incidents opened by type", {"{{type}}": rate("prunella_incidents_opened_total", "type")}, "ops"),
        Panel(
            "decisions by origin and action",
            {"{{origin}} {{action}}": rate("prunella_decisions_total", "origin", "action")},
            "ops",
        ),
        Panel("attempts ended by state", {"{{state}}": rate("prunella_attempts_ended_total", "state")}, "ops"),
        Panel("gate verdicts", {"{{gate}} {{answer}}": rate("prunella_gate_answers_total", "gate", "answer")}, "ops"),
        Panel("permits by gate", {"{{gate}}": rate("prunella_permit_answers_total", "gate")}, "ops"),
        Panel("permits answered to agents", {"{{answer}}": rate("prunella_permits_total", "answer")}, "ops"),
        Panel("staging", quantiles("prunella_staging_seconds"), "s"),
        Panel("command issued → written to the agent", quantiles("prunella_command_first_write_seconds"), "s"),
        Panel("feedback the decider learned from", {"{{label}}": rate("prunella_feedback_total", "label")}, "ops"),
        Panel(
            "rollouts: plugins that reached a state",
            {"{{state}}": rate("prunella_rollout_members_total", "state")},
            "ops",
        ),
        Panel("rollouts: facts", {"{{fact}}": rate("prunella_rollout_facts_total", "fact")}, "ops"),
        Panel("approvals that ended", {"{{outcome}}": rate("prunella_approvals_ended_total", "outcome")}, "ops"),
    ),
)
FLEET = Dashboard(
    "prunella-fleet",
    "Prunella: the fleet",
    "What agents send, and how soon it is durable.",
    (
        Panel("agents connected", {"": "sum(prunella_sessions)"}),
        Panel("beats per second", {"": rate("prunella_beats_total", where='outcome="stored"')}),
        Panel("beats refused per second", {"": rate("prunella_beats_total", where='outcome="refused"')}, red=1),
        Panel("beat → durable, p99", {"": quantile(0.99, "prunella_beat_commit_seconds")}, "s", red=1),
    ),
    (
        Panel("agents connected, by replica", {"{{instance}}": "prunella_sessions"}),
        Panel("beats by outcome", {"{{outcome}}": rate("prunella_beats_total", "outcome")}, "ops"),
        Panel("beat → durable", quantiles("prunella_beat_commit_seconds"), "s"),
        Panel("incidents by type", {"{{type}}": rate("prunella_incidents_opened_total", "type")}, "ops"),
        Panel("commands by kind", {"{{kind}}": rate("prunella_commands_issued_total", "kind")}, "ops"),
        Panel(
            "agent receipts by outcome",
            {"{{outcome}}": rate("prunella_command_receipts_total", "outcome")},
            "ops",
        ),
        Panel(
            "error reports by source and end",
            {"{{source}} {{outcome}}": rate("prunella_error_reports_total", "source", "outcome")},
            "ops",
        ),
        Panel("storms by type", {"{{type}}": rate("prunella_storms_total", "type")}, "ops"),
    ),
)
QUEUE = Dashboard(
    "prunella-queue",
    "Prunella: the queue",
    "Errors that plugins met, and the tasks that put them right.",
    (
        Panel("oldest task that waits", {"": "max(prunella_queue_oldest_waiting_seconds)"}, "s", red=900),
        Panel("failed tasks", {"": 'max(prunella_queue_tasks{state="failed"}) or vector(0)'}, red=1),
        Panel("escalated reports", {"": 'max(prunella_queue_reports{state="escalated"}) or vector(0)'}),
        Panel("leases lost, 1 h", {"": "sum(increase(prunella_queue_leases_lost_total[1h])) or vector(0)"}, red=5),
        Panel("healed for good, 24 h", {"": "sum(increase(prunella_queue_resolved_total[24h])) or vector(0)"}),
    ),
    (
        Panel("tasks by state", {"{{state}}": "max by (state) (prunella_queue_tasks)"}),
        Panel("reports by state", {"{{state}}": "max by (state) (prunella_queue_reports)"}),
        Panel("tries by outcome of the task", {"{{state}}": rate("prunella_queue_tries_total", "state")}, "ops"),
        Panel("errors received", {"{{outcome}}": rate("prunella_queue_errors_total", "outcome")}, "ops"),
        Panel(
            "triaged, by whom and to what",
            {"{{origin}} {{to}}": rate("prunella_queue_triaged_total", "origin", "to")},
            "ops",
        ),
        Panel("claim duration", quantiles("prunella_queue_claim_seconds"), "s"),
        Panel("wait until claimed", quantiles("prunella_queue_wait_seconds"), "s"),
        Panel("leases lost", {"{{to}}": rate("prunella_queue_leases_lost_total", "to")}, "ops"),
    ),
)
PLANE = Dashboard(
    "prunella-plane",
    "Prunella: the plane",
    "Whether the five services are well, what waits between them, and how long they take.",
    (
        Panel("services not serving", {"": "count(prunella_serving == 0) or vector(0)"}, red=1),
        Panel("dead letters", {"": "sum(max by (consumer) (prunella_dead_letters))"}, red=1),
        Panel("oldest fact not handled", {"": "max(prunella_consumer_lag_seconds)"}, "s", red=30),
        Panel("oldest fact not published", {"": "max(prunella_outbox_age_seconds)"}, "s", red=30),
        Panel("open breakers", {"": "sum(prunella_breakers_open) or vector(0)"}, red=1),
        Panel("audit violations", {"": "max(prunella_ops_audit_violations_total)"}, red=1),
    ),
    (
        Panel("serving", {"{{service}}": "min by (service) (prunella_serving)"}),
        Panel("facts not handled: age", {"{{consumer}}": "max by (consumer) (prunella_consumer_lag_seconds)"}, "s"),
        Panel("facts not published", {"{{consumer}}": "max by (consumer) (prunella_consumer_pending)"}),
        Panel("facts published, not settled", {"{{consumer}}": "max by (consumer) (prunella_consumer_unacknowledged)"}),
        Panel("outbox: facts", {"{{service}}": "max by (service) (prunella_outbox_facts)"}),
        Panel("outbox: age", {"{{service}}": "max by (service) (prunella_outbox_age_seconds)"}, "s"),
        Panel(
            "reactions, p99",
            {"{{consumer}} {{outcome}}": quantile(0.99, "prunella_reaction_seconds", "consumer", "outcome")},
            "s",
        ),
        Panel("facts given up", {"{{consumer}}": rate("prunella_facts_dead_lettered_total", "consumer")}, "ops"),
        Panel("calls, p99 by service", {"{{service}}": quantile(0.99, "prunella_rpc_seconds", "service")}, "s"),
        Panel("calls by code", {"{{code}}": rate("prunella_rpc_seconds_count", "code")}, "ops"),
        Panel(
            "slowest methods, p99", {"{{method}}": f"topk(5, {quantile(0.99, 'prunella_rpc_seconds', 'method')})"}, "s"
        ),
        Panel(
            "event loop: late by, p99",
            {"{{service}}": quantile(0.99, "prunella_event_loop_delay_seconds", "service")},
            "s",
        ),
        Panel(
            "database connections in use",
            {"{{service}}": "prunella_pool_connections_used / prunella_pool_connections"},
            "percentunit",
        ),
        Panel("errands that wait", {"{{service}}": "max by (service) (prunella_errands_pending)"}),
        Panel("errands under a lease", {"{{service}}": "max by (service) (prunella_errand_leases)"}),
        Panel("sweeps, p99", {"{{sweep}}": quantile(0.99, "prunella_sweep_seconds", "sweep")}, "s"),
        Panel("rounds of loops that failed", {"{{loop}}": rate("prunella_loop_failures_total", "loop")}, "ops"),
        Panel("breakers: changes", {"{{kind}} {{to}}": rate("prunella_breaker_changes_total", "kind", "to")}, "ops"),
        Panel(
            "messages to people",
            {"{{kind}} {{outcome}}": rate("prunella_notification_deliveries_total", "kind", "outcome")},
            "ops",
        ),
        Panel("audit: entries", {"entries": rate("prunella_ops_audit_entries_total")}, "ops"),
        Panel("spans dropped", {"{{reason}}": rate("prunella_ops_spans_dropped_total", "reason")}, "ops"),
        Panel("memory", {"{{instance}}": 'process_resident_memory_bytes{job="prunella"}'}, "bytes"),
    ),
)
DASHBOARDS: Final = (LOOP, FLEET, QUEUE, PLANE)


def to_grafana(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard as Grafana imports it."""
    chosen = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.meaning,
        "tags": ["prunella"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [chosen]},
        "links": [{"type": "dashboards", "tags": ["prunella"], "title": "Prunella", "asDropdown": True}],
        "panels": list(_positioned_panels(dashboard)),
    }


def _positioned_panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    for place, panel in enumerate(dashboard.stats):
        position = {"x": STAT_WIDTH * place, "y": 0, "w": STAT_WIDTH, "h": STAT_HEIGHT}
        yield _panel(place + 1, panel, "stat", position)
    for place, panel in enumerate(dashboard.panels):
        row, column = divmod(place, COLUMNS)
        position = {"x": WIDTH * column, "y": STAT_HEIGHT + HEIGHT * row, "w": WIDTH, "h": HEIGHT}
        yield _panel(len(dashboard.stats) + place + 1, panel, "timeseries", position)


def _panel(number: int, panel: Panel, kind: str, position: Mapping[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red is not None:
        steps.append({"color": "red", "value": panel.red})
    return {
        "id": number,
        "type": kind,
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": dict(position),
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "thresholds": {"mode": "absolute", "steps": steps},
                "noValue": "no data",
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": query, "legendFormat": legend or "value"}
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def render(dashboard: Dashboard) -> str:
    """The file of a dashboard."""
    return json.dumps(to_grafana(dashboard), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes every file."""
    FOLDER.mkdir(exist_ok=True)
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.uid}.json").write_text(render(dashboard))


if __name__ == "__main__":
    main()
