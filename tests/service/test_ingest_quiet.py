"""Who may be silent for longer never hides who may not; and a generation that came back is judged by its last run."""

from __future__ import annotations

from deploy.local.testing import BackingServices
from libs.common.clock import SystemClock
from libs.common.database import Database
from libs.common.names import new_id
from services.ingest import telemetry
from services.ingest.plugin_state import PluginState
from services.ingest.store import plugin_state
from services.ingest.windows import Window, append

NOW = 1_000_000.0


async def test_those_who_may_be_silent_longer_do_not_fill_the_look(backing: BackingServices) -> None:
    database = Database(backing.url(), clock=SystemClock())
    away, polling, silent = new_id(), new_id(), new_id()

    async def prepare(tx: object) -> None:
        await tx.run("ALTER TABLE ingest.plugin_state DISABLE TRIGGER ALL")  # type: ignore[attr-defined] # no plugins needed
        for plugin in (away, polling, silent):
            await plugin_state.insert(tx, plugin, "acme", "1.2.0")  # type: ignore[arg-type]
        for plugin, age, more in (
            (away, 500.0, "away = true, back_by_time = :now + 3600"),
            (polling, 200.0, "polling = true, back_by_time = :now * 0"),
            (silent, 95.0, "back_by_time = :now * 0"),
        ):
            text = f"UPDATE ingest.plugin_state SET last_beat_time = :beat, {more} WHERE id = CAST(:id AS uuid)"  # noqa: S608
            await tx.run(text, id=plugin, beat=NOW - age, now=NOW)  # type: ignore[attr-defined]

    await database.transaction(prepare)
    async with database.reading() as tx:
        found = await plugin_state.silent(tx, NOW - 90, NOW - 300, 1, 1, ahead=NOW + 60, away_missed=256)
        later = await plugin_state.silent(tx, NOW + 4000, NOW + 4000, 1, 10, ahead=NOW + 9000, away_missed=256)
    await database.close()
    assert [quiet.plugin for quiet in found] == [silent]
    assert {quiet.plugin for quiet in later} == {away, polling, silent}


def test_a_generation_that_came_back_is_not_judged_by_what_it_did_before() -> None:
    packed = b""
    for end, generation, failures in ((10, 4, 9), (20, 5, 5), (30, 4, 0), (40, 4, 0)):
        packed = append(packed, Window(NOW + end, 10.0, 0, 10, failures, 0, 1, generation))
    state = PluginState("p", generation=4, windows=packed)
    found = telemetry.compare(state, [], 4, NOW + 20, ())
    assert (sum(one.attempts for one in found.after), sum(one.failures for one in found.after)) == (20, 0)
    assert [one.failures for one in found.before] == [5]
