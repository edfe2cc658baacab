"""The state folder: one plane per checkout, secrets for us alone, ports that are remembered."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from deploy.local.account import Account
from deploy.local.ports import assign, free_ports, is_free
from deploy.local.state import CHECKOUT, State, label, locate, private_folder, write_json


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(private_folder(tmp_path / "state"))


def test_only_one_may_run_the_plane_and_the_next_may_when_it_ends(state: State) -> None:
    other = State(state.folder)
    assert state.acquire()
    assert not other.acquire()
    assert other.is_running()
    state.release()
    assert not other.is_running()
    assert other.acquire()
    other.release()


def test_what_a_dead_plane_said_of_itself_is_not_believed(state: State) -> None:
    write_json(state.plane_file, {"ready": True})
    assert state.plane() == {}
    assert state.acquire()
    assert State(state.folder).plane() == {"ready": True}
    state.release()


def test_secrets_are_made_once_and_only_we_can_read_them(state: State) -> None:
    made = state.secret("nats")
    assert len(made) == 48
    assert State(state.folder).secret("nats") == made
    assert state.secret("postgresql") != made
    assert (state.folder / "kept.json").stat().st_mode & 0o777 == 0o600


def test_a_draft_that_was_never_finished_changes_nothing(state: State) -> None:
    state.save(ports={"nats": 1})
    (state.folder / f".kept.json.{os.getpid()}").write_text('{"ports": {"na')
    assert state.saved() == {"ports": {"nats": 1}}


def test_fresh_forgets_everything_but_the_lock(state: State) -> None:
    assert state.acquire()
    state.secret("nats")
    (state.folder / "services" / "ops").mkdir(parents=True)
    state.wipe()
    assert [path.name for path in state.folder.iterdir()] == ["lock"]
    state.release()


def test_two_checkouts_have_two_folders() -> None:
    assert label(Path("/a/prunella")) != label(Path("/b/prunella"))
    assert label(CHECKOUT).startswith(CHECKOUT.name + "-")


def test_the_place_can_be_named(tmp_path: Path) -> None:
    assert locate({"PRUNELLA_STATE": str(tmp_path / "here")}).folder == (tmp_path / "here").resolve()


def test_a_home_that_cannot_be_written_is_replaced_by_a_private_folder_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setattr("deploy.local.state.os.geteuid", lambda: os.getuid() or 0)
    monkeypatch.setattr("deploy.local.state.root_folder", lambda: blocked)
    monkeypatch.setattr("deploy.local.state.tempfile.gettempdir", lambda: str(tmp_path))
    said: list[str] = []
    state = locate({"HOME": str(blocked)}, say=said.append)
    assert state.folder.parent.parent == tmp_path
    assert state.folder.parent.stat().st_mode & 0o777 == 0o700
    assert "PRUNELLA_STATE" in said[0]


def test_a_folder_that_somebody_else_prepared_in_a_public_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    monkeypatch.setattr("deploy.local.state.root_folder", lambda: blocked)
    monkeypatch.setattr("deploy.local.state.tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"prunella-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="PRUNELLA_STATE"):
        locate({"HOME": str(blocked)})


def test_a_remembered_port_is_used_again_and_a_taken_one_is_replaced_with_a_word() -> None:
    free, taken = free_ports(2)
    said: list[str] = []
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", taken))
        holder.listen()
        ports = assign(["ingest", "ops", "queue"], {"ingest": free, "ops": taken}, said.append)
    assert ports["ingest"] == free
    assert ports["ops"] != taken
    assert is_free(ports["queue"])
    assert len(said) == 1
    assert f"port {taken} is taken" in said[0]


def test_an_account_reaches_what_all_folders_above_let_it(tmp_path: Path) -> None:
    stranger = Account("stranger", 54321, 54321)
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "closed").mkdir(mode=0o700)
    assert stranger.passes(tmp_path / "open")
    assert not stranger.passes(tmp_path / "closed")
    assert not stranger.reaches(tmp_path / "closed" / "pg")
    assert Account("me", os.getuid(), os.getgid()).passes(tmp_path / "closed")


def test_what_is_written_is_plain_json(state: State) -> None:
    state.write_plane({"ready": False, "addresses": {"ops": "127.0.0.1:1"}})
    assert json.loads(state.plane_file.read_text())["addresses"] == {"ops": "127.0.0.1:1"}
