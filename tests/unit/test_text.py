"""Text from outside is cleaned by one function: whatever passes can be stored, sent and shown in a terminal."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from libs.common.text import clean_line, clean_text, clean_values

BAD = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("", ""),
        ("two lines\n\tand a tab, größer, 👍, שלום", "two lines\n\tand a tab, größer, 👍, שלום"),
        ("a\x00b", f"a{BAD}b"),
        ("half \ud83d or \udc00", f"half {BAD} or {BAD}"),
        ("\x1b[31mred\x1b[0m and \x1b[2Jgone", "red and gone"),
        ("\x1b]0;title\x07", f"{BAD}]0;title{BAD}"),
        ("\x9b31m \x08\x7f\x85", f"{BAD}31m {BAD}{BAD}{BAD}"),
        ("dos\r\nmac\runix\n", "dos\nmac\nunix\n"),
        ("\x1b\x1b[m[31m", f"{BAD}[31m"),
    ],
)
def test_what_cannot_be_stored_or_shown_is_replaced(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


ODD = some.text(alphabet=some.characters(categories=["Cc", "Cs", "Lu", "Nd", "Ps", "Zs"]))


@given(ODD, some.integers(0, 20))
def test_cleaned_text_can_be_encoded_obeys_its_bound_and_stays_as_it_is(text: str, longest: int) -> None:
    cleaned = clean_text(text, longest)
    assert len(cleaned) <= longest
    assert clean_text(cleaned) == cleaned
    cleaned.encode()
    assert not any((ord(sign) < 32 and sign not in "\n\t") or 127 <= ord(sign) < 160 for sign in cleaned)
    assert "\n" not in clean_line(text, longest)


def test_values_are_cleaned_as_deep_as_they_go() -> None:
    assert clean_values({"a\0": ["b\ud800", ("c", 1)], "n": None}) == {f"a{BAD}": [f"b{BAD}", ["c", 1]], "n": None}


@pytest.mark.parametrize("piece", ["\x1b[", "\x1b[0", "\x1b[" + "0" * 40, "\r", "\x00", "\ud800", "a"])
def test_no_text_costs_more_than_a_moment(piece: str) -> None:
    text = piece * (1024 * 1024 // len(piece))
    began = time.process_time()
    clean_text(text)
    assert time.process_time() - began < 0.5
