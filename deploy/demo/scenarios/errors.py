"""The scenarios of error reports: errors that tools heal, and those that they cannot.

Rule: as for the others. The fault is a careless edit of a relay's configuration file: deliveries may take half a second
where they took five, so that each answer of the merchant's slow sink comes too late. Too few webhooks fail for an
incident; the errors are what tells of it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.demo import edit
from deploy.demo.chronicle import reports
from deploy.demo.scenarios.scene import Mismatch, Report, Scenario, Scene, heard, now
from deploy.demo.shop import Shop
from deploy.demo.tools import plugins, settings
from prunella.v1.events_pb2 import Event, TaskLease, TaskOutcome

LANE = "errors"
REPORT_SECONDS = 30.0
WORK_SECONDS = 60.0
LOOK_SECONDS = 0.1
ENDS = ("report_resolved", "report_escalated")
TRIES = 3


async def careless(scene: Scene, report: Report, label: str) -> Shop:
    """A relay of a slow merchant, and an operator who writes 0.5 where 5 belongs and starts it again."""
    shop = await scene.fleet.add(label, traffic=False)
    report.plugin, report.fault = shop.plugin, now()
    await edit.careless(scene.fleet, shop)
    return shop


async def uses(shop: Shop, wanted: float) -> None:
    """Waits until the relay itself says that it uses a value. Raises Mismatch."""
    try:
        await edit.uses(shop, wanted)
    except TimeoutError as error:
        raise Mismatch(str(error)) from error


async def reported(scene: Scene, report: Report) -> None:
    """Waits until the relay's error has come to the queue."""
    event = await scene.chronicle.hear("error_reported", REPORT_SECONDS, plugin=report.plugin)
    report.error = event.error_reported.report.rpartition("/")[2]


async def ended(scene: Scene, report: Report) -> Event:
    """Waits for the end of the report and for all that led to it, and looks at what it may not have become."""
    end = await scene.chronicle.hear(ENDS, WORK_SECONDS, plugin=report.plugin)
    await heard(scene, lambda event: event.plugin == report.plugin or report.error in reports(event))
    if scene.chronicle.told("attempt_applied", plugin=report.plugin):
        raise Mismatch("something was applied to the plugin as well: the scenario proves nothing")
    return end


def leases(scene: Scene, report: Report) -> list[tuple[str, TaskLease]]:
    """Who claimed the report's task, and with which token, in order."""
    return [
        (event.tasks_claimed.worker, lease)
        for event in scene.chronicle.about(report.error)
        if event.WhichOneof("fact") == "tasks_claimed"
        for lease in event.tasks_claimed.leases
        if lease.report.rpartition("/")[2] == report.error
    ]


def outcomes(scene: Scene, report: Report) -> list[TaskOutcome]:
    """How each try for the report ended under a valid token, in order."""
    return [
        end
        for event in scene.chronicle.about(report.error)
        if event.WhichOneof("fact") == "tasks_finished"
        for end in event.tasks_finished.outcomes
        if end.report.rpartition("/")[2] == report.error
    ]


async def tries(scene: Scene, report: Report, count: int) -> None:
    """Waits until so many tries ended; the end of a story may be heard before that of its last try."""
    deadline = asyncio.get_running_loop().time() + WORK_SECONDS
    while len(outcomes(scene, report)) < count:
        if asyncio.get_running_loop().time() > deadline:
            raise Mismatch(f"{len(outcomes(scene, report))} tries ended within {WORK_SECONDS:g} s, not {count}")
        await asyncio.sleep(LOOK_SECONDS)


def told(scene: Scene, report: Report) -> list[str]:
    """The states in which the tries left the task, noted for people."""
    found = outcomes(scene, report)
    report.notes += [f"try {number}: {end.state} {end.failure}".rstrip() for number, end in enumerate(found, 1)]
    return [end.state for end in found]


@contextmanager
def opened(path: Path) -> Iterator[None]:
    """Somebody has the configuration open in an editor that locks it."""
    descriptor = os.open(settings.lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def error_resolved(scene: Scene, report: Report) -> None:
    """A careless edit makes deliveries fail; tools put the value right, and nobody is asked."""
    shop = await careless(scene, report, "shop-8")
    await reported(scene, report)
    await ended(scene, report)
    await tries(scene, report, 1)
    if told(scene, report) != ["completed"]:
        raise Mismatch(f"the tries ended {told(scene, report)}, one should have done")
    await uses(shop, edit.USUAL)


async def error_three_attempts(scene: Scene, report: Report) -> None:
    """The same, while somebody still has the file open: two tries fail, and the third finds it closed."""
    shop = await careless(scene, report, "shop-9")
    with opened(plugins.find(scene.fleet.folder, "shop-9").config):
        await reported(scene, report)
        await tries(scene, report, TRIES - 1)
    await ended(scene, report)
    await tries(scene, report, TRIES)
    if (states := told(scene, report)) != ["retrying", "retrying", "completed"]:
        raise Mismatch(f"the tries ended {states}, the third should have done")
    await uses(shop, edit.USUAL)


async def worker_killed(scene: Scene, report: Report) -> None:
    """The worker is killed in the middle of its task: its lease lapses and another worker does it, once."""
    shop = await careless(scene, report, "shop-10")
    report.traced = False
    await reported(scene, report)
    while not (claims := leases(scene, report)):
        await scene.chronicle.hear("tasks_claimed", WORK_SECONDS, after=scene.chronicle.mark())
    victim, first = claims[0]
    await scene.workers.kill(victim)
    scene.say(f"  {victim} is killed in the middle of its task")
    if outcomes(scene, report):
        raise Mismatch(f"{victim} was done before it could be killed")
    await scene.workers.add()
    await ended(scene, report)
    await tries(scene, report, 1)
    (worker, second), done = leases(scene, report)[-1], outcomes(scene, report)
    if [(end.state, end.token) for end in done] != [("completed", second.token)] or second.token <= first.token:
        raise Mismatch(f"{len(done)} ends for tokens {first.token} and {second.token}, one was to be")
    report.notes.append(f"{victim} died under token {first.token}, {worker} did it under token {second.token}")
    await uses(shop, edit.USUAL)


async def error_escalated(scene: Scene, report: Report) -> None:
    """The file was left half written, which no tool may mend: after three tries a person gets it with all of them."""
    shop = await careless(scene, report, "shop-11")
    config = plugins.find(scene.fleet.folder, "shop-11").config
    whole = config.read_text()
    config.write_text(whole[: len(whole) // 2])
    await reported(scene, report)
    end = await ended(scene, report)
    await tries(scene, report, TRIES)
    await shop.traffic.stop()
    if (states := told(scene, report)) != ["retrying", "retrying", "failed"]:
        raise Mismatch(f"the tries ended {states}, three should have failed")
    if not end.report_escalated.tried_strategies:
        raise Mismatch("the person is not told what was tried")
    report.notes.append(f"tried: {', '.join(end.report_escalated.tried_strategies)}")


ERRORS = (
    Scenario("error_resolved", "shop-8", "resolved", error_resolved, 90.0, LANE),
    Scenario("error_three_attempts", "shop-9", "resolved", error_three_attempts, 90.0, LANE),
    Scenario("worker_killed", "shop-10", "resolved", worker_killed, 90.0, LANE),
    Scenario("error_escalated", "shop-11", "escalated", error_escalated, 90.0, LANE),
)
