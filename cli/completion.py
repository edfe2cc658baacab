"""What Tab offers: the ids, labels and names that are really there, with a word on each.

Rule: completion never fails and never makes anybody wait: without a plane, or with a slow one, nothing is offered. Ids
are offered as lists show them, by their last eight digits, or whole to whoever began to type a whole one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from cli import id_lookup, listings

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

SECONDS = 2.0
MOST = 200  # of the newest
Offer = tuple[str, str]
Lister = Callable[["PlaneClient"], AsyncIterator[Offer]]


def offered(lister: Lister, typed: str) -> list[Offer]:
    """What begins with what was typed; empty when nobody answers in time."""
    from cli.plane_client import find

    async def ask() -> list[Offer]:
        plane = find()
        try:
            async with asyncio.timeout(SECONDS):
                return [offer async for offer in lister(plane) if offer[0].startswith(typed)]
        finally:
            await plane.close()

    try:
        return asyncio.run(ask())
    except Exception:  # noqa: BLE001 - a shell that waits for Tab has no place for errors
        return []


def by_id(listing: listings.Listing, describe: Callable[[Any], str]) -> Callable[[str], list[Offer]]:
    """Offers ids of a list: short ones, or whole ones where only a whole one can begin so."""

    def complete(incomplete: str) -> list[Offer]:
        async def offers(plane: PlaneClient) -> AsyncIterator[Offer]:
            async for one in listing(plane, MOST):
                short = id_lookup.short(one.name)
                yield (short if short.startswith(incomplete) else one.name.rpartition("/")[2]), describe(one)

        return offered(offers, incomplete)

    return complete


def plugin(incomplete: str) -> list[Offer]:
    """Plugins by label, or by id where they have none."""

    async def offers(plane: PlaneClient) -> AsyncIterator[Offer]:
        async for one in listings.plugins(plane, MOST):
            yield one.label or id_lookup.short(one.name), f"{one.package} {one.release}".strip()

    return offered(offers, incomplete)


def subject(incomplete: str) -> list[Offer]:
    """What waits for approval: attempts by id, rollouts as rollouts/ID."""

    async def offers(plane: PlaneClient) -> AsyncIterator[Offer]:
        async for one in listings.attempts(plane, MOST, state="awaiting_approval"):
            yield id_lookup.short(one.name), f"{action(one.action)} {one.to_release}"
        async for one in listings.rollouts(plane, MOST, state="pending"):
            yield f"rollouts/{id_lookup.short(one.name)}", f"{one.package} {one.target}"

    return offered(offers, incomplete)


def strategy(incomplete: str) -> list[Offer]:
    """Strategies by name."""

    async def offers(plane: PlaneClient) -> AsyncIterator[Offer]:
        for one in (await plane.call("queue.ListStrategies")).strategies:
            yield one.name.rpartition("/")[2], one.title

    return offered(offers, incomplete)


def release(incomplete: str) -> list[Offer]:
    """Releases as package@version."""

    async def offers(plane: PlaneClient) -> AsyncIterator[Offer]:
        async for one in listings.releases(plane, MOST):
            yield f"{one.package}@{one.version}", ""

    return offered(offers, incomplete)


def configuration(incomplete: str) -> list[Offer]:
    """Configurations as package@version."""

    async def offers(plane: PlaneClient) -> AsyncIterator[Offer]:
        async for one in listings.configurations(plane, MOST):
            yield f"{one.package}@{one.version}", id_lookup.short(one.plugin)

    return offered(offers, incomplete)


def dead_letter(incomplete: str) -> list[Offer]:
    """Facts that a consumer gave up, by id."""

    async def offers(plane: PlaneClient) -> AsyncIterator[Offer]:
        async for one in listings.dead_letters(plane, MOST):
            short = id_lookup.short(one.event_id)
            yield (short if short.startswith(incomplete) else one.event_id), f"{one.fact} for {one.consumer}"

    return offered(offers, incomplete)


def fact(incomplete: str) -> list[str]:
    """Kinds of facts; these need no plane."""
    from prunella.v1.events_pb2 import Event

    return [field.name for field in Event.DESCRIPTOR.oneofs_by_name["fact"].fields if field.name.startswith(incomplete)]


def action(number: Any) -> str:
    """An action as people say it."""
    from prunella.v1.events_pb2 import Action

    return Action.Name(number).removeprefix("ACTION_").lower()


incident = by_id(listings.incidents, lambda one: f"{one.type}, {one.state}")
decision = by_id(listings.decisions, lambda one: f"{action(one.action)} {one.release}")
attempt = by_id(listings.attempts, lambda one: f"{action(one.action)} {one.to_release}, {one.state}")
report = by_id(listings.reports, lambda one: f"{one.type}: {one.message[:60]}")
task = by_id(listings.tasks, lambda one: one.strategy.rpartition("/")[2])
rollout = by_id(listings.rollouts, lambda one: f"{one.package} {one.target}, {one.state}")
storm = by_id(listings.storms, lambda one: f"{one.type}, {one.state}")
notification = by_id(listings.notifications, lambda one: one.title or one.state)
proposal = by_id(listings.proposals, lambda one: f"{one.action} {one.target}")
