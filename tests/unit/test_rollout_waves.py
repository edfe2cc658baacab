"""Who gets a build when: sizes of waves, the canary list, strata, and a draw that is the same for everybody."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Invalid
from services.patcher.rollout.waves import DEFAULT_WAVES, Candidate, Wave, check, draw, sizes

CMS = ("woo",) * 7 + ("magento",) * 2 + ("shopify",)


def fleet(count: int, *, offline: int = 0) -> list[Candidate]:
    """Seven of ten on one CMS, two on another, one on a third; two regions; two releases."""
    return [
        Candidate(
            f"p{number}", f"m{number % 50}", "1.2.0" if number % 3 else "1.1.0",
            CMS[number % 10], "eu" if number % 4 < 2 else "us", number >= offline,
        )
        for number in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "added"),
    [
        (1, (1,)),
        (2, (1, 1)),
        (3, (2, 1)),
        (5, (3, 2)),
        (10, (5, 5)),
        (100, (5, 15, 30, 50)),
        (1000, (5, 195, 300, 500)),
    ],
)
def test_the_default_waves_fit_fleets_of_every_size(count: int, added: tuple[int, ...]) -> None:
    assert sizes(DEFAULT_WAVES, count) == added


@given(st.integers(1, 5_000), st.lists(st.integers(1, 99), max_size=6, unique=True), st.integers(0, 40))
def test_waves_are_never_empty_and_always_reach_everybody(count: int, shares: list[int], first: int) -> None:
    waves = [Wave(plugins=first)] * bool(first) + [Wave(percent=share) for share in sorted(shares)]
    added = sizes([*waves, Wave(percent=100)], count)
    assert sum(added) == count and min(added) >= 1
    if first and count > 1:
        assert added[0] <= max(first, -(-count // 2))


def test_the_draw_is_the_same_whoever_draws_and_another_for_another_rollout() -> None:
    plugins = fleet(300)
    assert draw("r1", plugins, DEFAULT_WAVES) == draw("r1", list(reversed(plugins)), DEFAULT_WAVES)
    assert draw("r1", plugins, DEFAULT_WAVES) != draw("r2", plugins, DEFAULT_WAVES)


def test_every_plugin_has_exactly_one_place_and_ranks_follow_the_waves() -> None:
    placed = draw("r1", fleet(300), DEFAULT_WAVES)
    assert sorted(one.plugin for one in placed) == sorted(one.plugin for one in fleet(300))
    assert [one.start_order for one in placed] == list(range(1, 301))
    assert [one.wave for one in placed] == sorted(one.wave for one in placed)
    assert Counter(one.wave for one in placed) == {1: 5, 2: 55, 3: 90, 4: 150}


def test_every_wave_resembles_the_fleet() -> None:
    plugins = {one.plugin: one for one in fleet(1_000)}
    cells = Counter((one.release, one.cms, one.region) for one in plugins.values())
    for rollout in ("r1", "r2", "r3"):
        placed = draw(rollout, plugins.values(), DEFAULT_WAVES)
        for size in (5, 200, 500):
            seen = Counter(
                (plugins[one.plugin].release, plugins[one.plugin].cms, plugins[one.plugin].region)
                for one in placed[:size]
            )
            for cell, count in cells.items():
                # Both the cell's own start and the place where the prefix is cut may cost one.
                assert abs(seen[cell] - size * count / 1_000) <= 2, (rollout, size, cell)


def test_over_many_rollouts_every_plugin_is_as_likely_to_be_first() -> None:
    plugins, first = fleet(40), Counter[str]()
    for number in range(2_000):
        first.update(one.plugin for one in draw(f"r{number}", plugins, DEFAULT_WAVES) if one.wave == 1)
    expected = 2_000 * 5 / 40
    assert len(first) == 40
    assert 0.7 * expected < min(first.values()) and max(first.values()) < 1.3 * expected


def test_the_canary_list_comes_first_by_plugin_or_merchant() -> None:
    placed = draw("r1", fleet(300), DEFAULT_WAVES, ("p7", "p123", "m9"))
    listed = {"p7", "p123", "p9", "p59", "p109", "p159", "p209", "p259"}
    assert {one.plugin for one in placed[:8]} == listed
    assert Counter(one.wave for one in placed)[1] == 5, "the first wave grows by no list"


def test_plugins_that_are_offline_are_in_no_wave_s_size_and_come_last() -> None:
    placed = draw("r1", fleet(110, offline=10), DEFAULT_WAVES)
    assert Counter(one.wave for one in placed if one.online) == {1: 5, 2: 15, 3: 30, 4: 50}
    assert {one.plugin for one in placed[-10:]} == {f"p{number}" for number in range(10)}
    assert not any(one.online for one in placed[-10:])


def test_a_fleet_that_is_wholly_offline_waits_in_one_wave() -> None:
    assert {(one.wave, one.online) for one in draw("r1", fleet(4, offline=4), DEFAULT_WAVES)} == {(1, False)}


@pytest.mark.parametrize(
    ("waves", "field"),
    [
        ([], "waves"),
        ([Wave()], "waves[0]"),
        ([Wave(plugins=1, percent=3)], "waves[0]"),
        ([Wave(plugins=-1), Wave(percent=100)], "waves[0].plugins"),
        ([Wave(percent=101)], "waves[0].percent"),
        ([Wave(percent=50), Wave(percent=50), Wave(percent=100)], "waves[1]"),
        ([Wave(plugins=5), Wave(plugins=5), Wave(percent=100)], "waves[1]"),
        ([Wave(percent=50)], "waves[0].percent"),
        ([Wave(plugins=5)], "waves[0].percent"),
        ([Wave(percent=step) for step in range(1, 22)], "waves"),
    ],
    ids=["none", "empty", "both", "negative", "101 %", "flat", "flat number", "short", "number last", "many"],
)
def test_waves_that_make_no_sense_are_refused_by_name(waves: list[Wave], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check(waves)
    assert refused.value.field == field
