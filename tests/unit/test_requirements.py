"""What a release requires of its host, and what a host lacks of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunella_agent import requirements
from prunella_agent.requirements import MOST, MOST_CLAUSES, Unmet, clauses, sentence, unmet, well_formed

HOST = {"runtime": "python 3.11.4", "platform": "Linux x86_64", "agent": "0.1.0", "php": "8.1.2", "cms": "wordpress"}


@pytest.mark.parametrize(
    "requires",
    [
        {"python": ">=3.11,<4"}, {"python": "==3.11.4"}, {"python": ">3.11.3"}, {"python": "<=3.11.4"},
        {"python": "!=3.11.3"}, {"system": "==Linux"}, {"machine": "!=arm64"}, {"agent": ">=0.1"}, {"php": ">=8,<9"},
        {"cms": "==wordpress"}, {},
    ],
)  # fmt: skip
def test_what_the_host_meets(requires: dict[str, str]) -> None:
    assert unmet(requires, HOST) == ()


@pytest.mark.parametrize(
    ("requires", "found"),
    [
        ({"python": ">=3.12"}, "3.11.4"), ({"python": "<3.11.4"}, "3.11.4"), ({"python": ">3.11.4"}, "3.11.4"),
        ({"python": ">=3.11,<3.11.4"}, "3.11.4"), ({"python": "!=3.11.4"}, "3.11.4"), ({"python": "==3.11"}, "3.11.4"),
        ({"php": ">=8.2"}, "8.1.2"), ({"ruby": ">=3"}, ""), ({"system": "==Darwin"}, "Linux"),
        ({"cms": ">=6"}, "wordpress"), ({"cms": "!=wordpress"}, "wordpress"), ({"php": "about 8"}, "8.1.2"),
    ],
)  # fmt: skip
def test_what_the_host_lacks_is_named_with_what_was_found(requires: dict[str, str], found: str) -> None:
    ((name, text),) = requires.items()
    assert unmet(requires, HOST) == (Unmet(f"{name} {text}", found),)


def test_all_that_is_lacking_is_said_in_one_sentence_in_the_order_of_names() -> None:
    lacking = unmet({"ruby": ">=3", "php": ">=8.2", "python": ">=3"}, HOST)
    assert sentence("1.4.0", lacking) == (
        "release 1.4.0 requires php >=8.2, this host has 8.1.2; ruby >=3, of which this host says nothing"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (">=3.11,<4", ((">=", "3.11"), ("<", "4"))), ("==linux", (("==", "linux"),)), (">= 3", None),
        ("3.11", None), (">=", None), (">=3,,<4", None), ("", None), ("~=3", None), (">=3;<4", None),
        (",".join([">=1"] * (MOST_CLAUSES + 1)), None),
    ],
)  # fmt: skip
def test_how_clauses_are_written(text: str, found: object) -> None:
    assert clauses(text) == found


@pytest.mark.parametrize("requires", [{}, {"python": ">=3.11"}, {f"n{n}": ">=1" for n in range(MOST)}])
def test_requirements_a_release_may_have(requires: object) -> None:
    assert well_formed(requires)


@pytest.mark.parametrize(
    "requires",
    [
        {f"n{n}": ">=1" for n in range(MOST + 1)}, {"Python": ">=3"}, {"": ">=3"}, {"python": "3"}, {"python": 3},
        {"a" * 65: ">=3"}, ["python"], None, {"python": ">=" + "1" * 65}, {3: ">=3"},
    ],
)  # fmt: skip
def test_requirements_no_release_may_have(requires: object) -> None:
    assert not well_formed(requires)


def test_the_environment_may_name_what_a_requirement_asks_for_itself() -> None:
    assert requirements.facts(HOST) == HOST | {"python": "3.11.4", "system": "Linux", "machine": "x86_64"}
    assert requirements.facts({"runtime": "", "platform": ""}) == {"runtime": "", "platform": ""}
    assert requirements.facts({"runtime": "php 8.1", "php": "8.2"})["php"] == "8.2"


@given(
    st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=4),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8)),
)
def test_whatever_is_asked_of_whatever_host_there_is_an_answer(requires: dict[str, str], host: dict[str, str]) -> None:
    lacking = unmet(requires, host)
    assert len(lacking) <= len(requires)
    assert sentence("1", lacking)
