"""The mutation tester itself: it makes mistakes that matter, and finds tests out that notice none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import __main__ as command
from tests.mutants.__main__ import Figures, accepted_of
from tests.mutants.hearts import HEARTS
from tests.mutants.mutation import mutants, sample
from tests.mutants.trial import ROOT, module_of

SOURCE = '''"""A rule: 1 or 2."""

LIMIT = 3


def late(age: int, limit: int = LIMIT) -> bool:
    """Whether 4 is late."""
    return not age < limit and age > 0
'''


def test_it_makes_the_mistakes_people_make() -> None:
    made = {(one.function, one.after) for one in mutants(SOURCE)}
    assert {
        ("", "LIMIT = 4"),
        ("", "LIMIT = 2"),
        ("late", "return age < limit and age > 0"),
        ("late", "return not age <= limit and age > 0"),
        ("late", "return not age < limit or age > 0"),
        ("late", "return not age < limit and age >= 0"),
        ("late", "return not age < limit and age > 1"),
    } <= made


def test_texts_types_and_what_only_guards_people_are_left_alone() -> None:
    assert not [one for one in mutants(SOURCE) if '"""' in one.before]
    guarded = "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass One:\n    name: str | None\n"
    assert mutants(guarded) == []
    named = "def one(a: int, *, b: int) -> int | None:\n    return a\n"
    assert [one for one in mutants(named) if one.line == 1] == []


def test_a_seed_chooses_the_same_ones_again() -> None:
    found = mutants(SOURCE)
    assert sample(found, 3, 1) == sample(found, 3, 1)
    assert len(sample(found, 3, 1)) == 3
    assert sample(found, 99, 1) == found
    assert {tuple(sample(found, 3, seed)) for seed in range(9)} != {tuple(sample(found, 3, 1))}


@pytest.mark.parametrize("heart", HEARTS)
def test_each_heart_and_its_tests_are_there(heart: str) -> None:
    assert (ROOT / heart).is_file()
    assert all((ROOT / f"tests/unit/{name}.py").is_file() for name in HEARTS[heart])


def test_the_name_of_a_heart_is_what_others_import_it_by() -> None:
    assert module_of("services/ingest/boots.py") == "services.ingest.boots"
    assert module_of("libs/agent/prunella_agent/versions.py") == "prunella_agent.versions"


@pytest.mark.parametrize(
    ("tried", "noticed", "accepted", "stale", "good"),
    [
        (20, 17, 0, [], True),
        (20, 16, 0, [], False),
        (20, 16, 2, [], True),
        (20, 20, 0, ["x"], False),
        (0, 0, 0, [], True),
    ],
)
def test_how_many_must_be_noticed(tried: int, noticed: int, accepted: int, stale: list[str], good: bool) -> None:
    assert Figures("heart", tried, noticed, accepted, [], stale).good is good


def test_survivors_are_accepted_by_function_and_line_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "accepted.toml"
    path.write_text('[[survivor]]\nheart = "h"\nfunction = "f"\nline = "a = 1"\nreason = "the same"\n')
    assert accepted_of("h", path) == {("f", "a = 1"): "the same"}
    assert accepted_of("other", path) == {}


TRIAL = """
from tests.mutants.mutation import mutants
from tests.mutants.trial import ROOT, killed, prepare
heart = "services/ingest/rate_reports.py"
source = (ROOT / heart).read_text()
prepare()
wrong = next(one.source for one in mutants(source) if one.function == "lowest")
never = "while True:\\n    pass\\n"
print(
    killed(heart, source, ["test_rate_reports"], 60),
    killed(heart, wrong, ["test_rate_reports"], 60),
    killed(heart, wrong, ["test_similarity"], 60),
    killed(heart, never, ["test_rate_reports"], 3),
)
"""


def test_a_mistake_is_noticed_by_its_own_tests_and_not_by_others() -> None:
    before = (ROOT / "services/ingest/rate_reports.py").read_text()
    done = subprocess.run(
        [sys.executable, "-c", TRIAL], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.stdout.split() == ["False", "True", "False", "True"], done.stderr[-2000:]
    assert (ROOT / "services/ingest/rate_reports.py").read_text() == before, "nothing is written"


def test_a_heart_that_does_not_exist_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["services/ingest/nothing.py"])
    assert ended.value.code == 2
    assert "no heart is called services/ingest/nothing.py" in capsys.readouterr().err
