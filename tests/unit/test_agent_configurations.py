"""Configurations: one meaning has one digest, every pinned key signed it, and it is meant for whom it names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunella_agent import configurations, releases
from prunella_agent.configurations import MAX_DOCUMENT, DigestCache
from prunella_agent.releases import ReleaseError

PAIRS = [releases.generate_key() for _ in range(2)]
PRIVATE = [private for private, _ in PAIRS]
PUBLIC = [public for _, public in PAIRS]


def reason(what: object, *args: object, **named: object) -> str:
    with pytest.raises(ReleaseError) as caught:
        what(*args, **named)  # type: ignore[operator]
    return caught.value.reason


def test_what_both_keys_signed_is_valid_however_the_document_is_written() -> None:
    given = configurations.describe(b'{"b": 2.0, "a": "x"}', package="relay", version="3", plugin="p-1")
    envelope = configurations.sign(given, PRIVATE)
    assert configurations.verify(envelope, b'{"a":"x","b":2}', PUBLIC) == (given, b'{"a":"x","b":2}')


def test_another_document_another_key_or_another_kind_of_envelope_is_refused() -> None:
    given = configurations.describe(b"{}", package="relay", version="3")
    envelope = configurations.sign(given, PRIVATE)
    assert reason(configurations.verify, envelope, b'{"a":1}', PUBLIC) == "DIGEST_MISMATCH"
    assert reason(configurations.verify, configurations.sign(given, PRIVATE[:1]), b"{}", PUBLIC) == "SIGNATURE_MISSING"
    assert reason(configurations.verify, envelope, b"{}", PUBLIC[:1]) == "KEYS_NOT_PINNED"
    release = releases.sign(releases.describe(b"x", package="relay", version="3"), PRIVATE)
    assert reason(configurations.verify, release, b"{}", PUBLIC) == "ENVELOPE_MALFORMED"
    assert reason(releases.verify, envelope, PUBLIC) == "ENVELOPE_MALFORMED"


@pytest.mark.parametrize("document", [b"[]", b"1", b"", b"{", b'{"a": NaN}', b'{"a": 9007199254740993}', b"[" * 5000])
def test_what_has_no_canonical_form_is_no_configuration(document: bytes) -> None:
    assert reason(configurations.canonical, document) == "CONFIG_MALFORMED"


def test_a_document_has_a_largest_size() -> None:
    fits = json.dumps({"a": "x" * (MAX_DOCUMENT - 9)}).replace(" ", "").encode()
    assert len(configurations.canonical(fits)) <= MAX_DOCUMENT
    assert reason(configurations.canonical, b" " * (MAX_DOCUMENT + 1)) == "CONFIG_TOO_LARGE"


@pytest.mark.parametrize(
    "wrong",
    [{"package": "../x"}, {"version": ""}, {"version": "a b"}, {"plugin": "p/1"}, {"plugin": "p" * 65}],
    ids=str,
)
def test_names_keep_their_rules(wrong: dict[str, str]) -> None:
    named = {"package": "relay", "version": "3"} | wrong
    assert reason(configurations.describe, b"{}", **named) == "CONFIG_MALFORMED"


def test_a_file_is_told_as_it_is_now(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path)
    assert cache.digest("gone.json") == cache.digest("") == ""
    file = tmp_path / "one.json"
    file.write_text('{"a": 1}')
    first = cache.digest("one.json")
    assert first == configurations.describe(b'{"a":1}', package="relay", version="1").digest
    file.write_text('{"a": 22}')
    assert cache.digest("one.json") != first
    file.write_text("not JSON at all")
    assert len(cache.digest("one.json")) == 64
