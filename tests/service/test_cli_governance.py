"""The reins on the command line: policy, approvals, rollouts and rolling back, against a living patcher."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.testing import BackingServices
from tests.service.cli_terminal import CommandResult, Terminal, cli_environment
from tests.service.governance import of, set_policy
from tests.service.patcher_alone import MAIN, archive
from tests.service.rollout_fleet import Fleet

WHY = ("-m", "a test")


@pytest.fixture
async def fleet(backing: BackingServices, tmp_path: Path) -> AsyncIterator[Fleet]:
    made = await Fleet.of(backing, tmp_path, 6)
    try:
        await made.publish(archive(tmp_path / "major", main=f"{MAIN}\n# two"), version="2.0.0")
        await set_policy(made, require_staging=False)
        yield made
    finally:
        await made.stop()


@pytest.fixture
def terminal(fleet: Fleet, tmp_path: Path) -> Terminal:
    told = {f"PRUNELLA_{name.upper()}_ADDRESS": address for name, address in fleet.plane.addresses.items()}
    return Terminal({**cli_environment(tmp_path / "state"), **told, "PRUNELLA_KEY": fleet.plane.key})


def good(answer: CommandResult) -> CommandResult:
    assert answer.code == 0, answer.err
    return answer


async def test_a_policy_is_shown_tried_set_and_remembered(fleet: Fleet, terminal: Terminal) -> None:
    await fleet.decide(plugin="p1")
    await of(fleet, "p1", "success")
    assert "0.75" in good(await terminal("policy", "show")).out
    tried = good(await terminal("policy", "dry-run", "min_confidence=0.9"))
    assert "1 of 1 decision would have turned out otherwise; nothing was changed" in tried.out
    assert "refuse CONFIDENCE" in tried.out
    changed = good(await terminal("policy", "set", "min_confidence=0.9", "canary_merchants+=m3", *WHY, "--yes"))
    assert "version 3 is in force" in changed.out
    newest = good(await terminal("policy", "history", "--json")).json[0]
    assert (newest["version"], newest["actor"], newest["reason"]) == ("3", "operators/local", "a test")
    assert {one["field"] for one in newest["fields"]} == {"min_confidence", "canary_merchants"}
    wrong = await terminal("policy", "set", "canary_percentage=101", *WHY, "--yes")
    assert (wrong.code, "canary_percentage must be 0 to 100 percent" in wrong.err) == (1, True)
    unread = await terminal("policy", "set", "min_confidence=0.8", *WHY)
    assert (unread.code, "add --yes" in unread.err) == (2, True)
    assert good(await terminal("policy", "show", "--json")).json["version"] == "3"


async def test_two_people_approve_what_they_are_shown_and_one_rejects(fleet: Fleet, terminal: Terminal) -> None:
    await fleet.decide(plugin="p1", release="2.0.0")
    waiting: Any = await of(fleet, "p1", "awaiting_approval")
    short = waiting.name[-8:]
    listed = good(await terminal("approvals")).out
    assert (short in listed, "shop-1" in listed, "0/2" in listed) == (True, True, True)
    author = await terminal("approve", short, *WHY, "--yes")
    assert (author.code, "wrote this plan" in author.err) == (1, True)
    first = good(await terminal("approve", short, *WHY, "--yes", PRUNELLA_OPERATOR="ann"))
    assert "1 of 2 agreed" in first.out
    assert waiting.approval.plan_hash in first.err, "nobody agrees to what they have not seen"
    twice = await terminal("approve", short, *WHY, "--yes", PRUNELLA_OPERATOR="ann")
    assert (twice.code, "approved already" in twice.err) == (1, True)
    good(await terminal("approve", short, *WHY, "--yes", PRUNELLA_OPERATOR="ben"))
    await of(fleet, "p1", "success")
    await fleet.decide(plugin="p2", release="2.0.0")
    asked: Any = await of(fleet, "p2", "awaiting_approval")
    said = good(await terminal("reject", asked.name[-8:], *WHY, "--yes", PRUNELLA_OPERATOR="ann"))
    assert "rejected" in said.out
    await of(fleet, "p2", "refused")


async def test_a_rollout_is_drawn_followed_steered_and_ended(fleet: Fleet, terminal: Terminal) -> None:
    waves = ("--wave", "2", "--wave", "100%", "--soak", "1h", "--exposure", "1")
    drawn = good(await terminal("rollout", "create", "checkout", "1.2.3", *WHY, *waves, "--dry-run"))
    assert "nothing was changed" in drawn.out
    made = good(await terminal("rollout", "create", "checkout", "1.2.3", *WHY, *waves, "--yes", "--json")).json
    id_ = made["name"][-8:]
    assert id_ in good(await terminal("rollout", "list")).out
    await fleet.reaches(made["name"], "soaking")
    assert "paused" in good(await terminal("rollout", "pause", id_, *WHY)).out
    assert "soaking" in good(await terminal("rollout", "resume", id_, *WHY)).out, "the wave was out already"
    await fleet.reaches(made["name"], "soaking")
    assert "wave 2" in good(await terminal("rollout", "show", id_, "--members", "healthy")).out
    assert "running" in good(await terminal("rollout", "promote", id_, *WHY)).out
    overlapping = await terminal("rollout", "create", "checkout", "2.0.0", *WHY, "--yes")
    assert (overlapping.code, "wait for its end, or abort it" in overlapping.err) == (1, True)
    good(await terminal("rollout", "abort", id_, *WHY, "--roll-back", "all", "--yes"))
    followed = await terminal("rollout", "show", id_, "--watch")
    assert (followed.code, "aborted" in followed.out) == (1, True), "only success ends well"
    assert {plugin.release for plugin in fleet.ingest.plugins.values()} == {"1.2.0"}
    nowhere = await terminal("rollout", "create", "checkout", "9.9.9", *WHY, "--yes")
    assert (nowhere.code, "publish it first" in nowhere.err) == (1, True)


async def test_a_rollout_that_waits_for_people_is_listed_and_approved(fleet: Fleet, terminal: Terminal) -> None:
    await set_policy(fleet, high_impact_plugins=3, multisig_quorum=1)
    made = good(await terminal("rollout", "create", "checkout", "1.2.3", *WHY, "--yes"))
    assert "waits for people: prunella approve rollouts/" in made.out
    named = made.out.partition("approve ")[2].split()[0]
    listed = good(await terminal("approvals")).out
    assert (named in listed, "6 plugins" in listed, "0/1" in listed) == (True, True, True)
    said = good(await terminal("approve", named, *WHY, "--yes", PRUNELLA_OPERATOR="ann"))
    assert "approved, 1 of 1 agreed; it is running" in said.out
    assert "nothing waits for people" in good(await terminal("approvals")).err


async def test_one_attempt_and_then_everything_since_a_moment_is_taken_back(fleet: Fleet, terminal: Terminal) -> None:
    for plugin in ("p1", "p2", "p3"):
        await fleet.decide(plugin=plugin)
        await of(fleet, plugin, "success")
    first: Any = await of(fleet, "p1", "success")
    single = good(await terminal("rollback", first.name[-8:], *WHY, "--yes", "--watch"))
    assert "rolled_back" in single.out.replace(" ", "_")
    rest = good(await terminal("rollback", "--since", "10min", *WHY, "--yes", "--watch", "--json")).json
    assert [one["state"] for one in rest["attempts"]] == ["rolled_back", "rolled_back"]
    assert {plugin.release for plugin in fleet.ingest.plugins.values()} == {"1.2.0"}
    neither = await terminal("rollback", *WHY)
    assert (neither.code, "say either which attempt, or --since" in neither.err) == (2, True)
