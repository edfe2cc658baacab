"""The audit log from a terminal: what a plane says, and what an auditor proves without one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.testing import BackingServices, Plane, Servers, until
from tests.service.audit_plane import health, superuser, tell
from tests.service.cli_terminal import Terminal, cli_environment

COUNT = 12


@pytest.fixture(scope="module")
async def audited(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Terminal, Plane]]:
    backing = await BackingServices.make(servers)
    plane = Plane(backing, names=["ops"])
    try:
        await plane.start()
        told = {f"PRUNELLA_{name.upper()}_ADDRESS": address for name, address in plane.addresses.items()}
        terminal = Terminal({**cli_environment(tmp_path_factory.mktemp("state")), **told, "PRUNELLA_KEY": plane.key})
        await tell(backing, *[health(actor="plugins/p" if number else "operators/ada") for number in range(COUNT)])
        await until(lambda: signed(plane), 20)
        yield terminal, plane
    finally:
        await plane.stop()
        await backing.discard()


async def signed(plane: Plane) -> bool:
    return bool(await plane.sql("SELECT 1 FROM ops.audit_checkpoints WHERE size = :size", size=COUNT))


@pytest.fixture
def terminal(audited: tuple[Terminal, Plane]) -> Terminal:
    return audited[0]


@pytest.fixture
def nowhere(tmp_path: Path) -> Terminal:
    """A machine that knows no plane."""
    return Terminal(cli_environment(tmp_path))


@pytest.fixture
async def taken(terminal: Terminal, tmp_path: Path) -> Path:
    """What an auditor takes away: an export, a checkpoint, the keys."""
    exported = await terminal("audit", "export", str(tmp_path / "audit.jsonl"))
    assert (exported.code, exported.out) == (0, "") and "12 entries" in exported.err
    (tmp_path / "checkpoint").write_text((await terminal("audit", "checkpoint")).out)
    (tmp_path / "key").write_text((await terminal("audit", "key")).out)
    return tmp_path


async def test_the_log_is_listed_with_who_did_what_and_why(terminal: Terminal) -> None:
    table = await terminal("audit", "--actor", "operators/ada")
    assert table.code == 0
    assert "operators/ada" in table.out and "plugin_health_changed" in table.out and "healthy → down" in table.out
    listed = (await terminal("audit", "list", "--json", "--since", "1h", "--until", "2099-01-01")).json
    assert [int(entry["index"]) for entry in listed] == list(range(COUNT))[::-1]
    assert (await terminal("audit", "--until", "1h", "--json")).json == []


async def test_a_proof_is_verified_before_it_is_shown(terminal: Terminal) -> None:
    proof = await terminal("audit", "prove", "7")
    assert proof.code == 0 and "entry 7 is in the log" in proof.out
    event = (await terminal("audit", "--json", "-n", "1")).json[0]["event"]["id"]
    assert "entry 11 is in the log" in (await terminal("audit", "prove", event)).out
    grown = await terminal("audit", "prove", "--from", "5")
    assert grown.code == 0 and "the log of 12 begins with the log of 5" in grown.out


async def test_an_auditor_verifies_without_a_plane(nowhere: Terminal, taken: Path) -> None:
    alone = await nowhere("audit", "verify", str(taken / "audit.jsonl"))
    assert alone.code == 0 and "entries 0 to 11" in alone.out and "give the one you know with --key" in alone.out
    words = ["--checkpoint", str(taken / "checkpoint"), "--key", str(taken / "key"), "--json"]
    verdict = (await nowhere("audit", "verify", str(taken / "audit.jsonl"), *words)).json
    assert (verdict["verified"], verdict["size"], verdict["known_checkpoints"]) == (True, COUNT, 1)
    typed = await nowhere("audit", "verify", str(taken / "audit.jsonl"), "--key", (taken / "key").read_text().strip())
    assert typed.code == 0


async def test_the_first_bad_entry_is_named(nowhere: Terminal, taken: Path) -> None:
    lines = (taken / "audit.jsonl").read_text().splitlines(keepends=True)
    lines[8] = lines[8].replace("no beat", "all was well")
    (taken / "edited.jsonl").write_text("".join(lines))
    found = await nowhere("audit", "verify", str(taken / "edited.jsonl"))
    assert (found.code, found.out) == (1, "")
    assert found.err == "prunella: entry 7: entry 7 was edited: it does not have the hash of its leaf\n"
    said = await nowhere("audit", "verify", str(taken / "edited.jsonl"), "--json")
    assert (said.code, said.json["verified"], said.json["index"]) == (1, False, 7)


async def test_a_cut_file_is_convicted_by_the_kept_checkpoint(nowhere: Terminal, taken: Path) -> None:
    lines = (taken / "audit.jsonl").read_text().splitlines(keepends=True)
    (taken / "cut.jsonl").write_text("".join(lines[:6]))
    found = await nowhere("audit", "verify", str(taken / "cut.jsonl"), "-c", str(taken / "checkpoint"))
    assert found.code == 1 and "entry 5" in found.err and "cut off" in found.err


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{}\n", b'{"export": "prunella-audit/1"}\n'])
async def test_a_file_that_is_no_export_is_said_to_be_none(nowhere: Terminal, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    found = await nowhere("audit", "verify", str(tmp_path / "file"))
    assert found.code == 1 and "Traceback" not in found.err and "entry 0" in found.err


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["prove"], 2, "name an entry"),
        (["prove", "3", "--from", "1"], 2, "name an entry"),
        (["prove", "99"], 1, "there is no entry 99"),
        (["prove", "nonsense"], 1, "must be a UUID"),
        (["prove", "3", "--size", "99"], 1, "must be from 0 to 12"),
        (["checkpoint", "--size", "99"], 1, "must be from 0 to 12"),
        (["list", "--since", "yesterday"], 2, "no duration"),
        (["list", "--since", "1h", "--until", "2h"], 1, "ends before it starts"),
        (["list", "--fact", "nonsense"], 1, "there is no fact"),
    ],
)
async def test_what_is_wrong_is_said(terminal: Terminal, line: list[str], code: int, said: str) -> None:
    answer = await terminal("audit", *line)
    assert answer.code == code and said in answer.err and "Traceback" not in answer.err


async def test_a_wrong_key_and_a_wrong_checkpoint_are_said(nowhere: Terminal, taken: Path) -> None:
    file = str(taken / "audit.jsonl")
    assert "a key is written" in (await nowhere("audit", "verify", file, "--key", "nonsense")).err
    assert "no signed checkpoint" in (await nowhere("audit", "verify", file, "-c", str(taken / "key"))).err


async def test_an_export_replaces_nothing_by_itself(terminal: Terminal, taken: Path) -> None:
    file = taken / "audit.jsonl"
    refused = await terminal("audit", "export", str(file))
    assert refused.code == 1 and "--force" in refused.err
    assert (await terminal("audit", "export", str(file), "--force", "--from", "4")).code == 0
    assert json.loads(file.read_text().splitlines()[0])["from"] == 4
    assert list(taken.glob(".*.part")) == []


async def test_a_check_compares_the_log_with_the_facts(audited: tuple[Terminal, Plane]) -> None:
    """Last in its file: it changes what others read."""
    terminal, plane = audited
    good = await terminal("audit", "check")
    assert good.code == 0 and "all 12 entries" in good.out
    async with superuser(plane.backing) as connection:
        await connection.execute("UPDATE bus.facts SET reason = 'all was well' WHERE actor = 'operators/ada'")
    found = await terminal("audit", "check")
    assert found.code == 1 and "'all was well' now" in found.out
