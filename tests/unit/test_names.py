"""Names parse back to what they were made of, and nothing else parses."""

import time
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import names
from libs.common.errors import Invalid

IDS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._+-]{0,40}[A-Za-z0-9])?", fullmatch=True)
MAKERS = {
    "plugins": names.plugin,
    "merchants": names.merchant,
    "incidents": names.incident,
    "decisions": names.decision,
    "attempts": names.attempt,
    "commands": names.command,
    "operators": names.operator,
}


@given(st.sampled_from(sorted(MAKERS)), IDS)
def test_a_name_gives_its_id_back(collection: str, identity: str) -> None:
    assert names.parse(collection, MAKERS[collection](identity)) == identity


@given(IDS, IDS)
def test_a_release_gives_package_and_version_back(package: str, version: str) -> None:
    assert names.parse_release(names.release(package, version)) == (package, version)


@given(st.text(max_size=60) | st.text(max_size=20).map(names.plugin))
def test_only_a_name_parses(text: str) -> None:
    identity = text.removeprefix("plugins/")
    if names.is_id(identity) and text == names.plugin(identity):
        assert names.parse("plugins", text) == identity
    else:
        with pytest.raises(Invalid):
            names.parse("plugins", text)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "plugins",
        "plugins/",
        "p1",
        "incidents/p1",
        "plugins/a/b",
        "plugins/../x",
        "plugins/ü",
        "plugins/a\n",
        "plugins/-a",
    ],
)
def test_a_wrong_name_is_invalid(name: str) -> None:
    with pytest.raises(Invalid):
        names.parse("plugins", name)


@pytest.mark.parametrize(
    "name", ["packages/a", "packages/a/releases/", "packages//releases/1", "packages/a/versions/1"]
)
def test_a_wrong_release_is_invalid_and_names_the_field(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        names.parse_release(name, field="release")
    assert caught.value.field == "release"


def test_ids_are_uuid_7_and_sort_by_time() -> None:
    made = []
    for _ in range(50):
        made.append(names.new_id())
        deadline = time.time_ns() + 1000
        while time.time_ns() < deadline:
            pass
    assert made == sorted(made)
    assert len(set(made)) == 50
    parsed = uuid.UUID(made[0])
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_an_id_carries_its_moment(at: datetime) -> None:
    milliseconds = uuid.UUID(names.new_id(at)).int >> 80
    assert milliseconds == round(at.timestamp() * 1_000_000) // 1000


@given(st.text())
def test_a_shard_is_one_of_sixteen(plugin: str) -> None:
    assert 0 <= names.shard(plugin) < names.SHARDS


def test_shards_never_change() -> None:
    assert [names.shard(text) for text in ("", "shop-7", "0198c0de-0000-7000-8000-000000000000")] == [4, 3, 12]


@pytest.mark.parametrize(("name", "id_"), [("incidents/i1", "i1"), ("i1", "i1"), ("", "")])
def test_a_filter_takes_names_and_ids_alike(name: str, id_: str) -> None:
    assert names.id_of(name) == id_


@pytest.mark.parametrize(
    "text", ["", "i1", "0198c0de00007000800000000000000000000000", "x198c0de-0000-7000-8000-000000000000"]
)
def test_only_a_uuid_can_be_looked_up_as_one(text: str) -> None:
    assert not names.is_uuid(text)
    assert names.is_uuid("0198c0de-0000-7000-8000-000000000000")
