"""Settings say everything that is wrong at once, and keep secrets to themselves."""

from pathlib import Path

import pytest

from libs.common.settings import BadSettings, ServiceSettings, load, variable

GOOD = {
    "DATABASE_URL": "postgresql://ingest:hunter2@127.0.0.1/prunella",
    "NATS_URL": "nats://127.0.0.1:4222",
    "PRUNELLA_KEY": "ab" * 32,
    "PRUNELLA_STATE": "/var/lib/prunella",
}


class Beats(ServiceSettings):
    """A service with a variable of its own."""

    beat_seconds: float = variable(
        "INGEST_BEAT_SECONDS", default=30.0, rule="seconds between beats, above 0", remedy="for example 30", gt=0
    )


def test_a_good_environment_loads_with_defaults() -> None:
    settings = load(Beats, GOOD)
    assert settings.beat_seconds == 30
    assert settings.state == Path("/var/lib/prunella")
    assert settings.listen == "127.0.0.1:0"
    assert settings.log == "auto"


def test_a_variable_is_read_by_its_name() -> None:
    assert load(Beats, GOOD | {"INGEST_BEAT_SECONDS": "0.5"}).beat_seconds == 0.5


def test_everything_wrong_is_said_at_once_with_variable_rule_and_remedy() -> None:
    environ = {
        "NATS_URL": "http://wrong",
        "PRUNELLA_KEY": "abc",
        "PRUNELLA_LISTEN": "localhost",
        "PRUNELLA_LOG": "loud",
        "INGEST_BEAT_SECONDS": "0",
        "PRUNELLA_STATE": "/tmp",
    }
    with pytest.raises(BadSettings) as caught:
        load(Beats, environ)
    wrong = {"DATABASE_URL", "NATS_URL", "PRUNELLA_KEY", "PRUNELLA_LISTEN", "PRUNELLA_LOG", "INGEST_BEAT_SECONDS"}
    assert set(caught.value.metadata) == wrong
    for name in wrong:
        assert f"  {name}: " in caught.value.message
    assert "missing; PostgreSQL URL of the service's role; for example postgresql://" in caught.value.message
    assert "seconds between beats, above 0; for example 30" in caught.value.message


def test_a_secret_can_come_from_a_file(tmp_path: Path) -> None:
    kept = tmp_path / "key"
    kept.write_text("cd" * 32 + "\n")
    environ = {name: value for name, value in GOOD.items() if name != "PRUNELLA_KEY"}
    assert load(Beats, environ | {"PRUNELLA_KEY_FILE": str(kept)}).key == "cd" * 32


def test_a_file_that_cannot_be_read_and_a_variable_given_twice_are_both_said(tmp_path: Path) -> None:
    environ = GOOD | {"PRUNELLA_KEY_FILE": str(tmp_path / "key"), "PRUNELLA_OTLP_FILE": str(tmp_path / "absent")}
    with pytest.raises(BadSettings) as caught:
        load(Beats, environ)
    assert "given twice" in caught.value.metadata["PRUNELLA_KEY"]
    assert "cannot be read" in caught.value.metadata["PRUNELLA_OTLP"]


def test_secrets_are_not_shown() -> None:
    assert "hunter2" not in repr(load(Beats, GOOD))
    assert GOOD["PRUNELLA_KEY"] not in str(load(Beats, GOOD))
    with pytest.raises(BadSettings) as caught:
        load(Beats, GOOD | {"DATABASE_URL": "mysql://root:hunter2@x", "PRUNELLA_KEY": "not-hex-hunter2"})
    assert "hunter2" not in f"{caught.value.message} {caught.value.metadata}"


def test_the_process_environment_is_read_only_by_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNELLA_LISTEN", "127.0.0.1:7777")
    assert load(Beats, GOOD).listen == "127.0.0.1:0"
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    assert load(Beats).listen == "127.0.0.1:7777"
