"""A running plane tells of itself what dashboards and alerts ask, in a number of series that nobody outside decides."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.plane_client import SERVICES
from deploy.local.plane import Plane
from deploy.local.state import State, private_folder
from deploy.local.testing import until
from tests.service.cli_terminal import Terminal, cli_environment
from tests.unit.observability_files import bases, expressions, metrics

pytestmark = pytest.mark.timeout(180)

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-|[0-9a-f]{24}|\d+\.\d+\.\d+\.\d+|load-")
MOST_SERIES = 3000
# What every service tells of itself, whatever it does.
VITAL = (
    "prunella_serving",
    "prunella_event_loop_delay_seconds",
    "prunella_pool_connections",
    "prunella_pool_connections_used",
    "prunella_nats_connected",
    "prunella_outbox_facts",
    "prunella_outbox_age_seconds",
)

Families = dict[str, list[tuple[str, dict[str, str], float]]]


@pytest.fixture(scope="module")
async def plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plane]:
    state = State(private_folder(tmp_path_factory.mktemp("metrics") / "state"))
    made = await Plane.start(state=state, environment={"INGEST_BEAT_SECONDS": "1"})
    try:
        yield made
    finally:
        await made.stop()


async def told(plane: Plane, service: str) -> Families:
    async with httpx2.AsyncClient(trust_env=False, timeout=10, follow_redirects=True) as client:
        answer = await client.get(f"http://{plane.http[service]}/metrics")
    assert answer.status_code == 200
    return {
        family.name: [(sample.name, sample.labels, sample.value) for sample in family.samples]
        for family in text_string_to_metric_families(answer.text)
    }


async def everything(plane: Plane) -> Families:
    families: Families = {}
    for service in SERVICES:
        for name, samples in (await told(plane, service)).items():
            families.setdefault(name, []).extend(samples)
    return families


async def test_every_service_answers_healthz_and_tells_how_it_is(plane: Plane) -> None:
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
        for service in SERVICES:
            answer = await client.get(f"http://{plane.http[service]}/healthz")
            assert (answer.status_code, answer.text) == (200, "ok")

    async def serving() -> bool:
        found = await everything(plane)
        samples = found.get("prunella_serving", [])
        return {labels["service"] for _, labels, value in samples if value == 1} == set(SERVICES)

    await until(serving, 30.0, what="every service says in figures that it serves")
    for service in SERVICES:
        found = await told(plane, service)
        for name in VITAL:
            assert any(labels.get("service") == service for _, labels, _ in found.get(name, [])), (service, name)
    consumers = {labels["consumer"] for _, labels, _ in (await everything(plane))["prunella_consumer_lag_seconds"]}
    assert consumers == {"ingest", "decider", "patcher", "ops"}


async def test_every_metric_of_dashboards_and_alerts_is_there(plane: Plane) -> None:
    found = set(await everything(plane))
    missing = {
        name: where for where, expression in expressions() for name in metrics(expression) if not bases(name) & found
    }
    assert not missing


async def test_the_fleet_does_not_decide_how_many_series_there_are(plane: Plane, tmp_path: Path) -> None:
    terminal = Terminal(cli_environment(tmp_path) | {"PRUNELLA_STATE": str(plane.folder)})

    async def series(agents: int) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        answer = await terminal("load", "--agents", str(agents), "--rate", "5", "--seconds", "1", "--json")
        assert answer.code == 0, answer.err
        found = await everything(plane)
        return {(name, tuple(sorted(labels.items()))) for samples in found.values() for name, labels, _ in samples}

    few = await series(2)
    many = await series(40)
    assert len(many) < MOST_SERIES
    assert not [one for one in many if any(ID.search(value) for _, value in one[1])]
    # Sweeps and methods may show up meanwhile; agents may not.
    assert {name for name, _ in many - few} <= {
        f"prunella_{name}_{part}"
        for name in ("rpc_seconds", "sweep_seconds", "reaction_seconds", "breaker_changes")
        for part in ("bucket", "count", "sum", "created", "total")
    }
