"""DATABASE_URL as libpq writes it: each parameter is understood, or refused by name before anything is done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.database_address import DEFAULT_TIMEOUT, parse

PLAIN = "postgresql://ann:s%40cret@db:6432/plane"


def test_the_parts_of_an_address() -> None:
    found = parse(PLAIN)
    assert (found.hosts, found.user, found.password, found.database) == ((("db", 6432),), "ann", "s@cret", "plane")
    assert (found.timeout, found.application_name, found.options, dict(found.parameters)) == (
        DEFAULT_TIMEOUT,
        "",
        "",
        {},
    )
    assert found.place == "db:6432"
    assert "s@cret" not in repr(found)


@pytest.mark.parametrize(
    ("url", "hosts", "database"),
    [
        ("postgres://ann@/plane", (("localhost", 5432),), "plane"),
        ("postgresql://ann@db", (("db", 5432),), "ann"),
        ("postgresql://ann@[::1]:5433/x", (("::1", 5433),), "x"),
        ("postgresql://ann@a:1,b/x?target_session_attrs=any", (("a", 1), ("b", 5432)), "x"),
        ("postgresql://ann@/x?host=/var/run/pg", (("/var/run/pg", 5432),), "x"),
        ("postgresql:///x?host=a,b&port=1,2", (("a", 1), ("b", 2)), "x"),
        ("postgresql:///x?host=a,b&port=7", (("a", 7), ("b", 7)), "x"),
        ("postgresql://ann@db:1/x?dbname=y", (("db", 1),), "y"),
        ("postgresql://ann@db?port=9", (("db", 9),), "ann"),
    ],
)
def test_places_are_read_as_libpq_reads_them(url: str, hosts: object, database: str) -> None:
    found = parse(url)
    assert (found.hosts, found.database) == (hosts, database)


def test_of_several_hosts_the_one_that_takes_writes_is_used_unless_something_else_is_asked_for() -> None:
    assert parse("postgresql://a@b,c/d").parameters == {"target_session_attrs": "read-write"}
    assert parse("postgresql://a@b,c/d?target_session_attrs=primary").parameters == {"target_session_attrs": "primary"}
    assert parse("postgresql://a@b/d").parameters == {}


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("sslmode=sometimes", "sslmode=sometimes"),
        ("sslnegotiation=direct", "sslnegotiation"),
        ("channel_binding=require", "channel_binding=require"),
        ("gssencmode=require", "gssencmode=require"),
        ("client_encoding=latin1", "client_encoding=latin1"),
        ("target_session_attrs=standby", "target_session_attrs=standby"),
        ("connect_timeout=soon", "connect_timeout=soon"),
        ("connect_timeout=3601", "connect_timeout=3601"),
        ("port=99999", "port 99999"),
        ("port=0", "port 0"),
        ("sslmode=require&sslmode=disable", "sslmode twice"),
        ("host=a,b,c&port=1,2", "3 hosts and 2 ports"),
        ("nonsense=1", "nonsense"),
    ],
)
def test_what_is_not_understood_is_named(query: str, named: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|asks|gives|names)") as refused:
        parse(f"postgresql://ann@db/x?{query}")
    assert named in str(refused.value)


@pytest.mark.parametrize("url", ["", "db", "mysql://a@b/c", "postgresql:/x", "postgresql+asyncpg://a@b/c"])
def test_what_is_no_address_is_said_with_one_that_is(url: str) -> None:
    with pytest.raises(ValueError, match="no PostgreSQL URL; write one such as postgresql://"):
        parse(url)


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=require",
        "sslmode=verify-full&sslrootcert=/ca.pem",
        "keepalives=1",
        "client_encoding=UTF8",
        "gssencmode=prefer",
    ],
)
def test_what_is_understood_reaches_the_driver(query: str) -> None:
    found = parse(f"postgresql://ann@db/x?{query}")
    dsn = found.connect_arguments("ingest")["dsn"]
    for part in query.split("&"):
        name, _, value = part.partition("=")
        kept = name.startswith("ssl")
        assert (f"{name}=" in dsn) is kept
        assert not kept or value.replace("/", "%2F") in dsn


@pytest.mark.parametrize(("text", "seconds"), [("10", 10.0), ("1", 2.0), ("0", DEFAULT_TIMEOUT), ("", DEFAULT_TIMEOUT)])
def test_how_long_a_connection_may_take(text: str, seconds: float) -> None:
    assert parse(f"postgresql://ann@db/x?connect_timeout={text}").connect_arguments("x")["timeout"] == seconds


def test_the_name_of_the_application_stands_before_ours_and_options_go_along() -> None:
    found = parse("postgresql://ann@db/x?application_name=acme&options=-c%20jit%3Doff")
    arguments = found.connect_arguments("ingest", {"statement_timeout": "5s"})
    assert arguments["server_settings"] == {
        "application_name": "acme ingest", "options": "-c jit=off", "statement_timeout": "5s",
    }  # fmt: skip
    assert parse(PLAIN).connect_arguments("ingest")["server_settings"] == {"application_name": "ingest"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:x@db:6432/plane?sslmode=require&connect_timeout=9&application_name=a&options=-c%20jit%3Doff",
        "postgresql://ann:x@a:1,b:2/plane", "postgresql://ann:x@/plane?host=/run/pg&port=5433",
        "postgresql://ann:x@[::1]:5/plane",
    ],
)  # fmt: skip
def test_the_same_place_for_another_user(url: str) -> None:
    mine = parse(url)
    theirs = parse(mine.as_user("prunella_ingest", "p@ss:w/rd"))
    assert (theirs.user, theirs.password) == ("prunella_ingest", "p@ss:w/rd")
    assert (theirs.hosts, theirs.database, theirs.parameters) == (mine.hosts, mine.database, mine.parameters)
    assert (theirs.timeout, theirs.application_name, theirs.options) == (
        mine.timeout,
        mine.application_name,
        mine.options,
    )


def test_somebody_elses_password_file_is_not_passed_on() -> None:
    mine = parse("postgresql://ann@db/x?passfile=/home/ann/.pgpass")
    assert "passfile" not in mine.as_user("prunella_ops", "p")


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_any_user_and_password_come_back_as_they_were(user: str, password: str) -> None:
    theirs = parse(parse(PLAIN).as_user(user, password))
    assert (theirs.user, theirs.password) == (user, password)
