"""The three shapes most commands have: a list, one resource, a change to one.

Rule: a command says what is its own (filters, columns, words); the page, `--json`, `--watch`, ids as they are typed and
the request id are the same for all and stand here. RPCs are named as `service.Method`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cli import id_lookup
from cli.output import plain, show_json, show_json_list, show_table, show_text
from cli.plane_client import TIMEOUT, run

if TYPE_CHECKING:
    from cli.listings import Listing
    from cli.plane_client import PlaneClient

# A row of an entry and the time of reading; in a labelled list also of the labels of plugins, which come second.
Row = Callable[..., Sequence[str]]


def run_list(
    listing: Listing, limit: int, columns: Sequence[str], row: Row, *, empty: str, json: bool, watch: bool = False,
    labelled: bool = False, after: Callable[[PlaneClient], Awaitable[None]] | None = None, **filters: Any,
) -> None:  # fmt: skip
    """A list that is narrowed down by filters; plugins, incidents and reports among them as people type them.

    `after` says something to people once the list is shown.
    """

    async def work(plane: PlaneClient) -> None:
        entries = listing(plane, limit, **await id_lookup.filters(plane, **filters))
        await show_list(plane, entries, columns, row, empty=empty, json=json, labelled=labelled)
        if after is not None and not json:
            await after(plane)

    run(work, watch=watch)


async def show_list(
    plane: PlaneClient, entries: AsyncIterator[Any], columns: Sequence[str], row: Row, *, empty: str, json: bool,
    labelled: bool = False,
) -> None:  # fmt: skip
    """Entries as JSON or as a table."""
    if json:
        await show_json_list(entries)
        return
    found, now = [entry async for entry in entries], datetime.now(UTC)
    if labelled:
        labels = await id_lookup.labels(plane, (entry.plugin for entry in found))
        show_table(columns, (row(entry, labels, now) for entry in found), empty=empty)
    else:
        show_table(columns, (row(entry, now) for entry in found), empty=empty)


def run_show(
    rpc: str, collection: str, typed: str, show: Callable[[PlaneClient, Any], Awaitable[None]], *, json: bool,
    field: str = "",
) -> None:  # fmt: skip
    """One resource, as JSON or as `show` prints it; `field` is where it stands in the response, empty for all of it."""

    async def work(plane: PlaneClient) -> None:
        answer = await plane.call(rpc, name=await id_lookup.resource(plane, collection, typed))
        found = getattr(answer, field) if field else answer
        if json:
            show_json(plain(found))
        else:
            await show(plane, found)

    run(work)


def run_change(
    rpc: str, collection: str, typed: str, sentence: Callable[[Any], str], *, json: bool = False, field: str = "",
    timeout: float = TIMEOUT, **fields: Any,
) -> None:  # fmt: skip
    """Changes one resource and prints what became of it: `said` makes the sentence of `field` of the response."""

    async def work(plane: PlaneClient) -> None:
        name = await id_lookup.resource(plane, collection, typed)
        answer = await plane.call(rpc, timeout=timeout, name=name, **fields)
        show_answer(getattr(answer, field) if field else answer, sentence, json=json)

    run(work)


def show_answer(answer: Any, sentence: Callable[[Any], str], *, json: bool) -> None:
    """What a change came to, as JSON or in one sentence."""
    if json:
        show_json(plain(answer))
    else:
        show_text(sentence(answer))
