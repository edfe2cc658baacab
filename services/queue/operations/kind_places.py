"""The kinds of a batch get their places (`kinds`), and what has no report of its own is counted elsewhere.

Rule: without new kinds it costs one look. New kinds of a plugin are placed by one transaction at a time, so that the
bound holds whoever reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from libs.common.database import Transaction
from libs.common.names import new_id
from services.queue.kinds import OVERFLOW, OVERFLOW_GROUPING, Kind, KnownKind, Place, places
from services.queue.report import SEVERITIES
from services.queue.store import merged_kinds
from services.queue.store.merged_kinds import Target
from services.queue.store.reports import Occurrence


@dataclass
class Placed:
    """Where the kinds of a batch are counted; `targets` for those without a report of their own."""

    known: dict[Kind, KnownKind]
    places: dict[Kind, Place]
    targets: dict[Kind, Target] = field(default_factory=dict)

    def is_own(self, one: Occurrence) -> bool:
        """Whether it is counted in a report of its own."""
        return self.places[one.plugin, one.fingerprint] is Place.OWN

    def promoted(self, one: Occurrence) -> Occurrence:
        """The first occurrence of a new report, without what was counted among too many kinds."""
        known = self.known.get((one.plugin, one.fingerprint), KnownKind())
        return replace(one, base=known.counted(one.counter, one.value)) if not known.own else one


async def place(tx: Transaction, batch: Sequence[Occurrence], most: int) -> Placed:
    """Places the kinds of a batch; `most` new ones of a plugin get a report of their own in an hour."""
    kinds = [(one.plugin, one.fingerprint) for one in batch]
    known, targets = await merged_kinds.look(tx, kinds)
    new = {plugin for (plugin, fingerprint), one in known.items() if one.new}
    room: dict[str, int] = {}
    if new:
        await merged_kinds.lock_plugins(tx, sorted(new))
        known, targets = await merged_kinds.look(tx, kinds)
        created = await merged_kinds.created(tx, sorted(new), OVERFLOW, most)
        room = {plugin: most - created.get(plugin, 0) for plugin in new}
    grew = [(kind, _grew(known[kind], one)) for kind, one in zip(kinds, batch, strict=True)]
    placed = Placed(known, places(grew, known, room), targets)
    await _settle(tx, placed)
    return placed


def _grew(known: KnownKind, one: Occurrence) -> bool:
    return known.counted(one.counter, one.value) < one.value


async def _settle(tx: Transaction, placed: Placed) -> None:
    """Finds the reports of what is beyond the bound, and locks whatever is counted in more than one place."""
    promoted = [kind for kind, where in placed.places.items() if where is Place.OWN and placed.known[kind].overflow]
    if promoted:
        await merged_kinds.forget(tx, promoted)
    beyond = [kind for kind, where in placed.places.items() if where is Place.OVERFLOW]
    if beyond:
        plugins = sorted({plugin for plugin, _ in beyond})
        reports = await merged_kinds.report_ids(tx, [(plugin, OVERFLOW) for plugin in plugins])
        made = {plugin: new_id(tx.now) for plugin in plugins if (plugin, OVERFLOW) not in reports}
        for plugin, fingerprint in beyond:
            report = made.get(plugin) or reports[plugin, OVERFLOW]
            placed.targets[plugin, fingerprint] = Target(report, OVERFLOW, plugin in made)
    elsewhere = [kind for kind, where in placed.places.items() if where is not Place.OWN]
    if elsewhere:
        counted = {(kind[0], placed.targets[kind].fingerprint) for kind in elsewhere}
        await merged_kinds.lock_reports(tx, sorted(counted | placed.places.keys()))


async def count_elsewhere(
    tx: Transaction, placed: Placed, batches: Sequence[Sequence[Occurrence]], most: int
) -> list[Occurrence]:
    """Counts what has no report of its own; returns what the reports it belongs to grew by, one for each of them."""
    first = batches[0]
    beyond = [one for one in first if placed.places[one.plugin, one.fingerprint] is Place.OVERFLOW]
    if fresh := [one for one in beyond if not placed.known[one.plugin, one.fingerprint].overflow]:
        reports = {one.plugin: placed.targets[one.plugin, one.fingerprint].report for one in fresh}
        await merged_kinds.add_overflow(tx, fresh, reports)
    grown: dict[Kind, Occurrence] = {}
    for batch in batches:
        by_kind = {(one.plugin, one.fingerprint): one for one in batch}
        for kind, increase in (await merged_kinds.count(tx, batch)).items() if batch else ():
            if increase:
                target = placed.targets[kind]
                key = (kind[0], target.fingerprint)
                grown[key] = _grown(grown.get(key), by_kind[kind], target, increase, most)
    for report in sorted({placed.targets[one.plugin, one.fingerprint].report for one in fresh}):
        await merged_kinds.prune(tx, report)
    return list(grown.values())


def _grown(before: Occurrence | None, one: Occurrence, target: Target, increase: int, most: int) -> Occurrence:
    """One more occurrence for the report that a kind belongs to; it has no counter, so it counts whole."""
    if before is not None:
        return replace(
            before,
            value=before.value + increase,
            seen=max(before.seen, one.seen),
            severity=max(before.severity, one.severity, key=_order),
        )
    # An occurrence that has its report's id is the first one of it.
    id_ = target.report if target.fresh else new_id()
    own = replace(one, id=id_, fingerprint=target.fingerprint, counter="", value=increase, base=0)
    if target.fingerprint != OVERFLOW:
        return own
    return replace(
        own,
        grouping=OVERFLOW_GROUPING,
        type="TooManyKinds",
        message=f"too many kinds of errors: more than {most} new ones within an hour; the rest is counted here",
        stack="",
        module="",
        context={},
    )


def _order(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else -1
