"""The worker's configuration: every mistake is named, and no secret has to stand in the file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from libs.common.errors import Invalid
from services.queue.worker.__main__ import main
from services.queue.worker.config import parse

GOOD = """
[worker]
name = "w-1"
concurrency = 3
lease_seconds = 12

[[server]]
name = "relay"
transport = "stdio"
command = "python"
args = ["-m", "deploy.demo.tools"]
env = { TOKEN = "${RELAY_TOKEN}" }
deadline_seconds = 5
[server.tools]
status = "read"
restart = { access = "write", deadline_seconds = 30 }

[[server]]
name = "host"
transport = "http"
url = "https://host.example/mcp"
headers = { authorization = "Bearer ${HOST_TOKEN}" }
[server.tools]
disk_usage = "read"
"""
ENVIRON = {"RELAY_TOKEN": "s1", "HOST_TOKEN": "s2"}


def test_a_configuration_is_read_whole() -> None:
    config = parse(GOOD, "worker.toml", ENVIRON)
    relay, host = config.servers
    assert (config.name, config.concurrency, config.lease_seconds, config.budget) == ("w-1", 3, 12, 20)
    assert relay.command == (sys.executable, "-m", "deploy.demo.tools")
    assert relay.env == {"TOKEN": "s1"}
    assert host.headers == {"authorization": "Bearer s2"}
    restart, status = config.tool("relay.restart"), config.tool("relay.status")
    assert restart is not None and (restart.write, restart.deadline_seconds) == (True, 30)
    assert status is not None and (status.write, status.deadline_seconds) == (False, 5)
    assert config.tool("relay.other") is None
    assert config.tool("nowhere.status") is None


def test_no_secret_is_in_what_is_printed() -> None:
    assert "s1" not in repr(parse(GOOD, "worker.toml", ENVIRON).servers)
    assert "s2" not in repr(parse(GOOD, "worker.toml", ENVIRON).servers)


@pytest.mark.parametrize(
    ("wrong", "instead", "said"),
    [
        ("concurrency = 3", "concurrency = 0", "[worker], field `concurrency` must be a whole number from 1 to 64"),
        ("concurrency = 3", "concurency = 3", "did you mean `concurrency`?"),
        ("lease_seconds = 12", "lease_seconds = 2", "from 5 to 600"),
        ('transport = "stdio"', 'transport = "pipe"', "must be one of http, stdio"),
        ('status = "read"', 'status = "maybe"', 'must be "read" or "write"'),
        ('access = "write", ', "", 'must be "read" or "write"'),
        ('name = "host"', 'name = "relay"', "two servers called 'relay'"),
        ('name = "host"', 'name = "Host 1"', "must be lower case letters"),
        ("https://host.example/mcp", "ftp://host.example", "must begin with http:// or https://"),
        ('args = ["-m", "deploy.demo.tools"]', "args = 5", "must be a list of texts"),
        ("${HOST_TOKEN}", "${NO_SUCH}", "names the variable NO_SUCH, which is not set"),
        ('[server.tools]\ndisk_usage = "read"', "", "must mark 1 to 500 tools"),
        ('status = "read"', '"sta tus" = "read"', "letters, digits"),
        ('name = "w-1"', 'name = "w\\n1"', "must be printable"),
        ("[worker]", "[worker", "this is not TOML"),
    ],
    ids=[
        "none", "misspelt", "lease", "transport", "mark", "no-mark", "twice", "name", "url", "args", "variable",
        "no-tools", "tool", "unprintable", "toml",
    ],
)  # fmt: skip
def test_a_mistake_names_table_field_rule_and_remedy(wrong: str, instead: str, said: str) -> None:
    assert wrong in GOOD
    with pytest.raises(Invalid) as found:
        parse(GOOD.replace(wrong, instead), "worker.toml", ENVIRON)
    assert said in found.value.message
    assert found.value.reason == "BAD_WORKER_CONFIG"


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(Invalid) as found:
        parse(
            GOOD.replace("concurrency = 3", "concurrency = 0").replace("= 12", "= 1").replace('"read"', '"x"'),
            "worker.toml",
            ENVIRON,
        )
    assert len(found.value.message.splitlines()) == 4


def test_a_file_without_servers_is_a_mistake() -> None:
    with pytest.raises(Invalid, match="at least one"):
        parse("", "worker.toml", {})


def test_the_command_line_says_what_is_wrong_and_ends_with_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "none.toml"
    assert main(["--config", str(missing)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    good = tmp_path / "worker.toml"
    good.write_text(GOOD.replace("${RELAY_TOKEN}", "x").replace("${HOST_TOKEN}", "x"))
    assert main(["--config", str(good), "--check"]) == 0
    monkeypatch.delenv("PRUNELLA_KEY", raising=False)
    monkeypatch.delenv("PRUNELLA_QUEUE_ADDRESS", raising=False)
    assert main(["--config", str(good)]) == 2
    assert "PRUNELLA_QUEUE_ADDRESS: missing" in capsys.readouterr().err
