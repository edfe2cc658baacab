"""Ids as people type them: whole, by a unique beginning or end, or by a plugin's label.

Ids of one minute begin alike (UUIDv7 begins with the time), so lists show the last eight digits, which differ.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from cli import listings

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

FULL_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MIN_LENGTH = 4
# Collections whose singular or command differs from their name.
CALLED = {
    "errorReports": ("error", "errors"),
    "tasks": ("task", "queue list"),
    "rollouts": ("rollout", "rollout list"),
    "deadLetters": ("dead letter", "dead-letters"),
}


def short(name: str) -> str:
    """The end of an id or name, which is enough to type."""
    return name.rpartition("/")[2][-8:]


def typed_id(collection: str, text: str) -> str:
    """What was typed, without the collection and without the dots that lists put before the end of an id."""
    return text.strip().removeprefix(f"{collection}/").strip("…").rstrip(".").lower()


def match(collection: str, typed: str, names: Iterable[str]) -> str:
    """The one id that begins or ends with what was typed. Raises NotFound or Invalid."""
    from libs.common.errors import Invalid, NotFound

    what, command = CALLED.get(collection, (collection.removesuffix("s"), collection))
    if len(typed) < MIN_LENGTH:
        raise Invalid(f"{typed!r} is too short for an id; type at least {MIN_LENGTH} digits of it", reason="SHORT_ID")
    found = sorted({id_ for name in names if _matches(id_ := name.rpartition("/")[2], typed)})
    if not found:
        raise NotFound(f"no {what} begins or ends with {typed!r}; see: prunella {command}", reason="UNKNOWN_ID")
    if len(found) > 1:
        some = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
        raise Invalid(f"{typed!r} fits {len(found)} {what}s: {some}; type more of it", reason="AMBIGUOUS_ID")
    return found[0]


def _matches(id_: str, typed: str) -> bool:
    return id_.startswith(typed) or id_.endswith(typed)


async def plugin(plane: PlaneClient, typed: str) -> str:
    """The id of a plugin, named by label, id or part of it. Raises NotFound or Invalid."""
    from libs.common.errors import Invalid, NotFound

    text = typed_id("plugins", typed)
    if FULL_ID.fullmatch(text):
        return text
    label = typed.strip().removeprefix("plugins/")
    try:
        found = await plane.call("ingest.GetPlugin", name=f"plugins/{label}")
        return str(found.plugin.name.rpartition("/")[2])
    except (NotFound, Invalid):
        return match("plugins", text, [entry.name async for entry in listings.plugins(plane)])


async def strategy(plane: PlaneClient, typed: str) -> str:
    """The name of a strategy, or of the one that begins so. Raises NotFound or Invalid."""
    from libs.common.errors import Invalid, NotFound

    text = typed.strip().removeprefix("strategies/")
    names = [one.name.removeprefix("strategies/") for one in (await plane.call("queue.ListStrategies")).strategies]
    found = [text] if text in names else [name for name in names if text and name.startswith(text)]
    if not found:
        raise NotFound(f"no strategy begins with {text!r}; see: prunella strategies", reason="UNKNOWN_STRATEGY")
    if len(found) > 1:
        raise Invalid(f"{text!r} fits {', '.join(found)}; type more of it", reason="AMBIGUOUS_STRATEGY")
    return str(found[0])


Lookup = Callable[["PlaneClient", str], Awaitable[str]]


def _lookup(collection: str, entries: listings.Listing, **filters: Any) -> Lookup:
    async def lookup(plane: PlaneClient, typed: str) -> str:
        text = typed_id(collection, typed)
        if FULL_ID.fullmatch(text):
            return text
        return match(collection, text, [one.name async for one in entries(plane, **filters)])

    return lookup


# The id of one of these, as it was typed. Each raises NotFound or Invalid.
incident = _lookup("incidents", listings.incidents)
decision = _lookup("decisions", listings.decisions)
attempt = _lookup("attempts", listings.attempts)
report = _lookup("errorReports", listings.reports, include_merged=True)
task = _lookup("tasks", listings.tasks)
proposal = _lookup("proposals", listings.proposals)
rollout = _lookup("rollouts", listings.rollouts)
storm = _lookup("storms", listings.storms)
notification = _lookup("notifications", listings.notifications)


LOOKUPS: dict[str, Lookup] = {
    "plugins": plugin, "incidents": incident, "decisions": decision, "attempts": attempt, "errorReports": report,
    "tasks": task, "proposals": proposal, "rollouts": rollout, "storms": storm, "notifications": notification,
    "strategies": strategy,
}  # fmt: skip
# Filters of lists that name something.
REFERENCES: dict[str, Lookup] = {"plugin": plugin, "incident": incident, "report": report}


async def resource(plane: PlaneClient, collection: str, typed: str) -> str:
    """The name of one of a collection, as it was typed. Raises NotFound or Invalid."""
    if lookup := LOOKUPS.get(collection):
        return f"{collection}/{await lookup(plane, typed)}"
    # Releases and configurations are a package's versions.
    package, found, version = typed.partition("@")
    return f"packages/{package}/{collection}/{version}" if found else typed


async def filters(plane: PlaneClient, **typed: Any) -> dict[str, Any]:
    """Filters of a list, with ids for what names something; what is empty stays so. Raises NotFound or Invalid."""
    return {
        name: await REFERENCES[name](plane, value) if value and name in REFERENCES else value
        for name, value in typed.items()
    }


async def labels(plane: PlaneClient, ids: Iterable[str]) -> dict[str, str]:
    """What people call these plugins; the end of the id for one that cannot be asked."""
    from libs.common.errors import Problem

    wanted = sorted({id_ for id_ in ids if id_})
    bound = asyncio.Semaphore(16)

    async def ask(id_: str) -> str:
        async with bound:
            try:
                answer = await plane.call("ingest.GetPlugin", name=f"plugins/{id_}")
            except Problem:
                return f"…{short(id_)}"
            return answer.plugin.label or f"…{short(id_)}"

    return dict(zip(wanted, await asyncio.gather(*map(ask, wanted)), strict=True))
