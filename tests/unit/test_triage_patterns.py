"""Patterns: a small language that is checked when it is read and cannot be slow, whatever text it meets."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from services.queue import catalogue_file, patterns

BOOK = catalogue_file.parse((Path(catalogue_file.__file__).with_name("strategies.toml")).read_text(), "strategies.toml")
TYPE_PATTERNS = sorted(
    {type_pattern.pattern.text for error_type in BOOK.error_types for type_pattern in error_type.type_patterns}
)
SIXTY_FOUR = 65536


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("disk (?:is )?full", "the disk is full now", "disk is full"),
        ("disk (?:is )?full", "the disk full", "disk full"),
        ("rate.?limit", "rate-limit", "rate-limit"),
        (r"\b(?:eacces|eperm)\b", "open: eacces", "eacces"),
        (r"\b(?:eacces|eperm)\b", "peacces", ""),
        (r"http [45]\d{2}", "got http 503", "http 503"),
        ("column .{0,9}does not exist", "column 'a' does not exist", "column 'a' does not exist"),
        ("column .{0,9}does not exist", "column 'a' of nothing we know does not exist", ""),
    ],
)
def test_a_pattern_finds_what_it_names(pattern: str, text: str, found: str) -> None:
    assert patterns.read(pattern).found(text) == found


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("", "1 to 200"),
        ("a" * 201, "1 to 200"),
        ("Disk", "lower case"),
        ("ab", "at least 3"),
        (".{3,80}", "at least 3"),
        ("(?:abc|d)", "at least 3"),
        ("(?:abc)?", "at least 3"),
        ("disk.*full", r"\? or \{m,n\}"),
        ("disk+", "one quantifier"),
        ("*disk", "may not use"),
        ("disk++", "one quantifier"),
        ("(?:disk)*", "one quantifier|may not use"),
        ("(?:disk|(?:a|b))", "group in a group"),
        ("(disk)", "group with"),
        ("(?=disk)disk", "group with"),
        (r"disk\1", "may not use"),
        ("disk|full", "outside"),
        ("disk.{0,81}", "1 to 80"),
        ("disk.{9,3}", "1 to 80"),
        ("disk.{0,9}{0,9}", "one quantifier"),
        ("disk.{0,9}?", "one quantifier"),
        ("(?:disk){0,9}", "one quantifier"),
        ("disk.{0,40}full.{0,40}a", "300 ways"),
        ("(?:disk", "not closed"),
        ("disk[ab", "not closed"),
        ("disk[z-a]", "no regular expression"),
    ],
)
def test_a_pattern_that_could_be_slow_or_means_nothing_is_refused_with_its_rule(pattern: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        patterns.read(pattern)


@given(some.text(alphabet="ab.?*+(){}[]|\\^$0,4:", min_size=1, max_size=30))
def test_whatever_is_accepted_is_linear(text: str) -> None:
    try:
        pattern = patterns.read(text)
    except ValueError:
        return
    assert pattern.cost <= patterns.MOST_COST
    hostile = ("ab" * 2000, "a" * 4000, "b" * 4000)
    began = time.process_time()
    for line in hostile:
        pattern.found(line)
    assert time.process_time() - began < 0.5


def hostile(pattern: str) -> list[str]:
    """Texts that begin to fit a pattern again and again and never do."""
    literal = re.sub(r"\(\?:([^|)]*)[^)]*\)\??", r"\1", pattern).replace("\\b", "").replace("\\", "")
    begin = re.split(r"[.{\[]", literal)[0] or literal[:3]
    pieces = [begin, begin + " ", literal[:-1] or "a", begin[:1], begin + "  ", literal[: len(literal) // 2] or "a"]
    return [(piece * (SIXTY_FOUR // len(piece) + 1))[:SIXTY_FOUR] for piece in pieces]


@pytest.mark.parametrize("pattern", TYPE_PATTERNS)
def test_no_text_of_64_kib_holds_a_pattern_of_the_book_for_50_ms(pattern: str) -> None:
    read = patterns.read(pattern)
    for text in hostile(pattern):
        spent = []
        for _ in range(3):
            began = time.process_time()
            read.found(text)
            spent.append(time.process_time() - began)
        assert min(spent) < 0.05
