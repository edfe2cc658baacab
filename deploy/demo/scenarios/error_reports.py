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

from deploy.demo import config_edit
from deploy.demo.scenarios.scenario import Context, Mismatch, Result, Scenario, now, wait_for_delivery
from deploy.demo.shop import Shop
from deploy.demo.timeline_follower import reports
from deploy.demo.tools import plugins, relay_settings
from prunella.v1.events_pb2 import Event, TaskLease, TaskOutcome

LANE = "errors"
REPORT_SECONDS = 30.0
WORK_SECONDS = 60.0
LOOK_SECONDS = 0.1
ENDS = ("report_resolved", "report_escalated")
TRIES = 3


async def edit_carelessly(ctx: Context, result: Result, label: str) -> Shop:
    """A relay of a slow merchant, and an operator who writes 0.5 where 5 belongs and starts it again."""
    shop = await ctx.fleet.add(label, traffic=False)
    result.plugin, result.fault = shop.plugin, now()
    await config_edit.shorten_timeout(ctx.fleet, shop)
    return shop


async def check_used(shop: Shop, wanted: float) -> None:
    """Waits until the relay itself says that it uses a value. Raises Mismatch."""
    try:
        await config_edit.wait_until_used(shop, wanted)
    except TimeoutError as error:
        raise Mismatch(str(error)) from error


async def wait_reported(ctx: Context, result: Result) -> None:
    """Waits until the relay's error has come to the queue."""
    event = await ctx.timeline.wait_for("error_reported", REPORT_SECONDS, plugin=result.plugin)
    result.error = event.error_reported.report.rpartition("/")[2]


async def wait_ended(ctx: Context, result: Result) -> Event:
    """Waits for the end of the report and for all that led to it, and looks at what it may not have become."""
    end = await ctx.timeline.wait_for(ENDS, WORK_SECONDS, plugin=result.plugin)
    await wait_for_delivery(ctx, lambda event: event.plugin == result.plugin or result.error in reports(event))
    if ctx.timeline.facts("attempt_applied", plugin=result.plugin):
        raise Mismatch("something was applied to the plugin as well: the scenario proves nothing")
    return end


def leases(ctx: Context, result: Result) -> list[tuple[str, TaskLease]]:
    """Who claimed the report's task, and with which token, in order."""
    return [
        (event.tasks_claimed.worker, lease)
        for event in ctx.timeline.about_report(result.error)
        if event.WhichOneof("fact") == "tasks_claimed"
        for lease in event.tasks_claimed.leases
        if lease.report.rpartition("/")[2] == result.error
    ]


def outcomes(ctx: Context, result: Result) -> list[TaskOutcome]:
    """How each try for the report ended under a valid token, in order."""
    return [
        end
        for event in ctx.timeline.about_report(result.error)
        if event.WhichOneof("fact") == "tasks_finished"
        for end in event.tasks_finished.outcomes
        if end.report.rpartition("/")[2] == result.error
    ]


async def wait_tries(ctx: Context, result: Result, count: int) -> None:
    """Waits until so many tries ended; the end of the report may arrive before that of its last try."""
    deadline = asyncio.get_running_loop().time() + WORK_SECONDS
    while len(outcomes(ctx, result)) < count:
        if asyncio.get_running_loop().time() > deadline:
            raise Mismatch(f"{len(outcomes(ctx, result))} tries ended within {WORK_SECONDS:g} s, not {count}")
        await asyncio.sleep(LOOK_SECONDS)


def try_states(ctx: Context, result: Result) -> list[str]:
    """The states in which the tries left the task, noted for people."""
    found = outcomes(ctx, result)
    result.notes += [f"try {number}: {end.state} {end.failure}".rstrip() for number, end in enumerate(found, 1)]
    return [end.state for end in found]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody has the configuration open in an editor that locks it."""
    descriptor = os.open(relay_settings.lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def error_resolved(ctx: Context, result: Result) -> None:
    """A careless edit makes deliveries fail; tools put the value right, and nobody is asked."""
    shop = await edit_carelessly(ctx, result, "shop-8")
    await wait_reported(ctx, result)
    await wait_ended(ctx, result)
    await wait_tries(ctx, result, 1)
    if try_states(ctx, result) != ["completed"]:
        raise Mismatch(f"the tries ended {try_states(ctx, result)}, one should have done")
    await check_used(shop, config_edit.USUAL_SECONDS)


async def error_three_attempts(ctx: Context, result: Result) -> None:
    """The same, while somebody still has the file open: two tries fail, and the third finds it closed."""
    shop = await edit_carelessly(ctx, result, "shop-9")
    with locked(plugins.find(ctx.fleet.folder, "shop-9").config):
        await wait_reported(ctx, result)
        await wait_tries(ctx, result, TRIES - 1)
    await wait_ended(ctx, result)
    await wait_tries(ctx, result, TRIES)
    if (states := try_states(ctx, result)) != ["retrying", "retrying", "completed"]:
        raise Mismatch(f"the tries ended {states}, the third should have done")
    await check_used(shop, config_edit.USUAL_SECONDS)


async def worker_killed(ctx: Context, result: Result) -> None:
    """The worker is killed in the middle of its task: its lease lapses and another worker does it, once."""
    shop = await edit_carelessly(ctx, result, "shop-10")
    result.traced = False
    await wait_reported(ctx, result)
    while not (claims := leases(ctx, result)):
        await ctx.timeline.wait_for("tasks_claimed", WORK_SECONDS, after=ctx.timeline.offset())
    victim, first = claims[0]
    await ctx.workers.kill(victim)
    ctx.say(f"  {victim} is killed in the middle of its task")
    if outcomes(ctx, result):
        raise Mismatch(f"{victim} was done before it could be killed")
    await ctx.workers.add()
    await wait_ended(ctx, result)
    await wait_tries(ctx, result, 1)
    (worker, second), done = leases(ctx, result)[-1], outcomes(ctx, result)
    if [(end.state, end.token) for end in done] != [("completed", second.token)] or second.token <= first.token:
        raise Mismatch(f"{len(done)} ends for tokens {first.token} and {second.token}, one was to be")
    result.notes.append(f"{victim} died under token {first.token}, {worker} did it under token {second.token}")
    await check_used(shop, config_edit.USUAL_SECONDS)


async def error_escalated(ctx: Context, result: Result) -> None:
    """The file was left half written, which no tool may mend: after three tries a person gets it with all of them."""
    shop = await edit_carelessly(ctx, result, "shop-11")
    config = plugins.find(ctx.fleet.folder, "shop-11").config
    content = config.read_text()
    config.write_text(content[: len(content) // 2])
    await wait_reported(ctx, result)
    end = await wait_ended(ctx, result)
    await wait_tries(ctx, result, TRIES)
    await shop.traffic.stop()
    if (states := try_states(ctx, result)) != ["retrying", "retrying", "failed"]:
        raise Mismatch(f"the tries ended {states}, three should have failed")
    if not end.report_escalated.tried_strategies:
        raise Mismatch("the person is not told what was tried")
    result.notes.append(f"tried: {', '.join(end.report_escalated.tried_strategies)}")


ERROR_REPORTS = (
    Scenario("error_resolved", "shop-8", "resolved", error_resolved, 90.0, LANE),
    Scenario("error_three_attempts", "shop-9", "resolved", error_three_attempts, 90.0, LANE),
    Scenario("worker_killed", "shop-10", "resolved", worker_killed, 90.0, LANE),
    Scenario("error_escalated", "shop-11", "escalated", error_escalated, 90.0, LANE),
)
