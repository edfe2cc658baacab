"""`prunella notifications` against a living ops, and what docs/notifications.md tells people to type."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.notification_settings_file import load
from deploy.local.testing import BackingServices, Plane, Servers
from libs.common.facts import NAMES
from services.ops.notify.defaults import FOR_OPERATORS
from services.ops.notify.validation import check
from services.ops.wire.notification_settings import settings_of
from tests.service.cli_terminal import Terminal, cli_environment
from tests.service.notification_plane import SECRET, NotificationPlane, escalated

GUIDE = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()


def block(language: str) -> str:
    """The first block of a language in the guide."""
    found = re.search(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    assert found
    return found.group(1)


@pytest.fixture(scope="module")
async def people(servers: Servers) -> AsyncIterator[NotificationPlane]:
    backing = await BackingServices.make(servers)
    plane = Plane(backing, names=["ops"])
    made = NotificationPlane(await plane.start())
    try:
        yield await made.start()
    finally:
        await made.stop()
        await plane.stop()
        await backing.discard()


@pytest.fixture
def terminal(people: NotificationPlane, tmp_path: Path) -> Terminal:
    told = {"PRUNELLA_OPS_ADDRESS": people.plane.addresses["ops"], "PRUNELLA_KEY": people.plane.key}
    return Terminal({**cli_environment(tmp_path), **told, "PRUNELLA_OPERATOR": "ada", "COLUMNS": "160"})


def written(people: NotificationPlane, folder: Path, **changed: Any) -> Path:
    """A document in a file."""
    hook = {"id": "hook", "webhook": {"url": people.hook.url, "secret": "${HOOK_SECRET}"}}
    route = {"id": "ops", "min_severity": "high", "steps": [{"channels": ["hook"]}]}
    file = folder / "settings.json"
    file.write_text(json.dumps({"batch_window": "1s", "channels": [hook], "routes": [route]} | changed))
    return file


async def test_from_nothing_to_a_message_that_somebody_has_seen(
    people: NotificationPlane, terminal: Terminal, tmp_path: Path
) -> None:
    empty = await terminal("notifications", "settings")
    assert "nobody is told, all is only recorded" in empty.out
    change = ("notifications", "settings", "set", str(written(people, tmp_path)), "-m", "go live", "--yes")
    missing = await terminal(*change)
    assert (missing.code, "HOOK_SECRET" in missing.err) == (2, True)
    made = await terminal(*change, HOOK_SECRET=SECRET)
    assert "version 1 is in force" in made.out, made.err
    tried = await terminal("notifications", "settings", "test", "hook")
    assert (tried.code, tried.out) == (0, "hook took it: 200 ok\n")
    shown = await terminal("notifications", "settings", "show", "--json")
    assert (shown.json["updated_by"], shown.json["channels"][0]["webhook"]["secret_set"]) == ("operators/ada", True)
    assert SECRET not in shown.out
    # What is printed can be typed again.
    (tmp_path / "again.json").write_text(shown.out)
    again = await terminal("notifications", "settings", "set", str(tmp_path / "again.json"), "-m", "the same", "-y")
    assert "nothing differs; version 1 stays in force" in again.out, again.err

    await people.tell(escalated())
    found = await people.one("sent")
    listed = await terminal("notifications")
    assert "a person is asked about webhook_fail_rate" in listed.out
    assert "sent" in listed.out
    short = found.name[-8:]
    one = await terminal("notifications", "show", short)
    assert "200 ok" in one.out
    seen = await terminal("notifications", "ack", short, "-m", "on it")
    assert "acknowledged by operators/ada" in seen.out
    assert (await terminal("notifications", "list", "--state", "acknowledged", "--json")).json[0]["name"] == found.name
    people.hook.answer = lambda _post: (404, "gone")
    failed = await terminal("notifications", "settings", "test", "hook")
    assert (failed.code, failed.out) == (1, "hook did not take it: 404 gone\n")


async def test_a_document_that_is_wrong_is_refused_with_the_place(
    people: NotificationPlane, terminal: Terminal, tmp_path: Path
) -> None:
    def change(file: Path) -> tuple[str, ...]:
        return ("notifications", "settings", "set", str(file), "-m", "try", "--yes")

    (tmp_path / "broken.toml").write_text("routes = [")
    broken = await terminal(*change(tmp_path / "broken.toml"))
    assert (broken.code, "is no TOML" in broken.err) == (2, True)
    unknown = await terminal(*change(written(people, tmp_path, chanels=[])), HOOK_SECRET=SECRET)
    assert (unknown.code, "chanels" in unknown.err) == (2, True)
    wrong = written(people, tmp_path, routes=[{"id": "x", "facts": ["nonsense"], "steps": [{"channels": ["pager"]}]}])
    refused = await terminal(*change(wrong), HOOK_SECRET=SECRET)
    assert refused.code != 0
    assert "routes[0].facts" in refused.err
    assert "routes[0].steps[0].channels" in refused.err
    unread = await terminal(*change(tmp_path / "nothing.json"))
    assert (unread.code, "cannot be read" in unread.err) == (2, True)


def test_the_guides_example_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "guide.toml"
    file.write_text(block("toml"))
    with pytest.raises(typer.Exit):
        load(file)
    for name, value in (
        ("PAGER_SECRET", SECRET),
        ("SLACK_WEBHOOK", "https://hooks.slack.com/services/T0/B0/x"),
        ("SMTP_PASSWORD", "p"),
    ):
        monkeypatch.setenv(name, value)
    check(settings_of(load(file)), NAMES)
    assert all(fact in GUIDE for fact in FOR_OPERATORS)


async def test_the_guides_receiver_believes_us_and_nobody_else(people: NotificationPlane) -> None:
    await people.set()
    people.hook.answer = lambda _post: (200, "ok")
    people.hook.posts.clear()
    from prunella.v1.notification_pb2 import TestChannelRequest

    await people.ops.TestChannel(TestChannelRequest(channel="hook"), timeout=20)
    (got,) = people.hook.posts
    receiver: dict[str, Any] = {}
    exec(block("python"), receiver)  # noqa: S102 - what the guide says is what is tested
    verified = receiver["verified"]
    assert verified(SECRET, got.headers, got.body)
    assert not verified(SECRET, got.headers, got.body + b" ")
    assert not verified("whsec_" + "b" * 43 + "=", got.headers, got.body)
    assert not verified(SECRET, got.headers | {"webhook-timestamp": "1700000000"}, got.body)
    assert not verified(SECRET, got.headers | {"webhook-id": "another"}, got.body)
