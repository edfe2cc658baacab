"""Problems keep what they say when they are copied or pickled."""

import copy
import pickle

import pytest

from libs.common import errors
from libs.common.errors import Invalid, NotFound, Problem, known

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, Problem) and kind is not Problem
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_survives_copying_and_pickling(kind: type[Problem]) -> None:
    problem = kind("no such plugin", reason="PLUGIN_UNKNOWN", field="name", retry_after=2.0, plugin="p1")
    problem.metadata["message"] = "a key that is also an argument"
    for again in (copy.copy(problem), pickle.loads(pickle.dumps(problem))):  # noqa: S301
        assert type(again) is kind
        assert (again.message, again.reason, again.field, again.retry_after) == (
            "no such plugin",
            "PLUGIN_UNKNOWN",
            "name",
            2.0,
        )
        assert again.metadata == problem.metadata


def test_every_class_stands_for_its_own_code() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes) == 9


def test_a_problem_shows_class_reason_and_sentence() -> None:
    assert repr(Invalid("too long", reason="TOO_LONG")) == "Invalid(TOO_LONG: too long)"


def test_what_is_known_is_returned_and_what_is_not_is_named() -> None:
    assert known("row", "incident", "i1") == "row"
    with pytest.raises(NotFound) as caught:
        known(None, "error_report", "r" * 200)
    assert caught.value.reason == "ERROR_REPORT_UNKNOWN"
    assert caught.value.message == "there is no error report " + "r" * 80
    assert (caught.value.field, caught.value.metadata) == ("name", {"error_report": "r" * 80})
