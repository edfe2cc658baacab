"""`prunella doctor --bundle`: what somebody needs to help and no secret, from a plane with secrets everywhere."""

from __future__ import annotations

import json
import os
import secrets
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.state import State, private_folder
from deploy.local.testing import BackingServices, Plane, Servers
from libs.common import access
from libs.common.redaction import redacted_environment
from tests.service.cli_terminal import Terminal, cli_environment


@pytest.fixture(scope="module")
async def plane(servers: Servers) -> AsyncIterator[Plane]:
    backing = await BackingServices.make(servers)
    made = Plane(backing)
    try:
        yield await made.start()
    finally:
        await made.stop()
        await backing.discard()


def contents(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        return {
            entry.name.removeprefix("prunella-bundle/"): archive.extractfile(entry).read().decode()  # type: ignore[union-attr]
            for entry in archive.getmembers()
        }


def planted(plane: Plane, state: State) -> dict[str, str]:
    """Secrets of every kind, where they are found in life; by what they are."""
    made = {name: secrets.token_hex(24) for name in ("roles", "release-key-1", "demo", "sira", "database", "unknown")}
    state.save(secrets={"roles": made["roles"], "release-key-1": made["release-key-1"]}, ports={"ops": 1})
    (state.folder / "demo").mkdir()
    (state.folder / "demo" / "world.json").write_text(json.dumps({"sink_port": 1, "secret": made["demo"]}))
    token = access.service_token(plane.key, "operator")
    state.logs.mkdir()
    lines = [
        f'{{"event": "connecting", "url": "postgresql://ops:{made["database"]}@127.0.0.1/prunella"}}',
        f"refused: authorization {token}",
        f"Traceback: token={made['unknown']}",
        f"roles={made['roles']} {made['release-key-1']} {made['demo']} {made['sira']} {plane.key}",
        '{"event": "serving", "service": "ops"}',
    ]
    (state.logs / "ops.log").write_text("\n".join(lines) + "\n")
    return made | {"key": plane.key, "proof": token.rpartition(":")[2]}


async def test_a_bundle_holds_what_helps_and_no_secret(plane: Plane, tmp_path: Path) -> None:
    state = State(private_folder(tmp_path / "state"))
    assert state.acquire()
    try:
        made = planted(plane, state)
        database = plane.backing.url()
        content: dict[str, Any] = {
            "ready": True,
            "supervisor": os.getpid(),
            "addresses": plane.addresses,
            "http": {name: plane.settings(name)["PRUNELLA_HTTP_LISTEN"] for name in ("ops",)},
            "key": plane.key,
            "database_url": database,
            "nats_url": plane.backing.nats_url,
            "processes": {"ops": os.getpid()},
            "settings": {"ops": redacted_environment(plane.settings("ops"))},
        }
        state.write_plane(content)
        terminal = Terminal(cli_environment(state.folder))
        target = tmp_path / "bundle.tar.gz"
        answer = await terminal("doctor", "--bundle", str(target), "--json", DECIDER_SIRA_TOKEN=made["sira"])
        assert answer.json["checks"]
        assert f"wrote {target}" in answer.err
        found = contents(target)
    finally:
        state.release()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert {"versions.json", "doctor.json", "settings.json", "overview.json", "dead-letters.json"} <= set(found)
    assert '"event": "serving"' in found["logs/ops.log"]
    assert "prunella_rpc_seconds" in found["metrics/ops.txt"]
    assert json.loads(found["overview.json"])["services"] is not None
    settings = json.loads(found["settings.json"])
    assert settings["cli"]["DECIDER_SIRA_TOKEN"] == "[redacted]"
    assert settings["ops"]["PRUNELLA_LISTEN"] == plane.addresses["ops"]
    for name, text in found.items():
        leaked = [what for what, secret in made.items() if secret in text]
        assert not leaked, f"{name} holds {leaked}"


async def test_without_a_plane_it_says_what_is_missing_and_no_file_is_replaced(tmp_path: Path) -> None:
    state = private_folder(tmp_path / "state")
    terminal = Terminal(cli_environment(state))
    target = tmp_path / "bundle.tar.gz"
    answer = await terminal("doctor", "--bundle", str(target))
    assert answer.code == 1
    assert json.loads(contents(target)["overview.json"]) == {"missing": "no plane to ask"}
    before = target.read_bytes()
    again = await terminal("doctor", "--bundle", str(target))
    assert (again.code, target.read_bytes()) == (2, before)
    assert "name another file" in again.err
