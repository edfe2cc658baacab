"""The classifier: taught by verified outcomes alone, honest about how sure it is, bounded, and able to forget."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from services.queue.classifier import (
    FADE_AT,
    LEAST_LESSONS,
    MOST_FEATURES,
    UNTRAINED,
    Counts,
    Model,
    feature,
    model,
    predict,
    teach,
    tokens,
)
from services.queue.report import Report

TEXTS = {
    "network": ("peer {} vanished from the mesh", "mesh link to {} is flapping", "lost the mesh link at {}"),
    "disk": ("volume {} rejected the write", "journal of volume {} cannot grow", "volume {} remounted without writes"),
    "memory": ("cache {} grew beyond its arena", "arena {} exhausted by cache", "evicting cache {} was too slow"),
}


def report(message: str, type_: str = "Error") -> Report:
    return Report("r", "p", "m", "relay", "1", type_, message)


def lessons(count: int, seed: int = 1) -> list[tuple[str, Report]]:
    rng = random.Random(seed)  # noqa: S311 - makes examples
    error_types = [rng.choice(sorted(TEXTS)) for _ in range(count)]
    return [(kind, report(rng.choice(TEXTS[kind]).format(f"n{rng.randrange(1000)}"))) for kind in error_types]


def taught(told: list[tuple[str, Report]]) -> Model:
    known = UNTRAINED
    for kind, each in told:
        known, _ = teach(known, kind, each)
    return known


def test_it_says_nothing_before_it_was_taught_enough() -> None:
    assert predict(UNTRAINED, report("peer a vanished")) is None
    few = taught([("network", report("peer a vanished"))] * (LEAST_LESSONS - 1))
    assert predict(few, report("peer a vanished")) is None


def test_confidence_rises_with_predictions_that_came_true() -> None:
    sure = []
    for count in (4, 8, 16, 32):
        told = predict(
            taught([("network", report("peer a vanished from the mesh"))] * count), report("peer vanished mesh")
        )
        assert told is not None
        sure.append(told.confidence)
    assert sure == sorted(sure)
    assert sure[0] < 0.7 <= sure[-1]


def test_it_learns_to_tell_types_apart() -> None:
    known = taught(lessons(120))
    fresh = lessons(100, seed=2)
    told = [(kind, predict(known, each)) for kind, each in fresh]
    sure = [(kind, found) for kind, found in told if found and found.confidence >= 0.7]
    assert len(sure) > 80
    assert sum(kind == found.type for kind, found in sure) == len(sure)


def test_wrong_predictions_cost_confidence() -> None:
    text = report("something vague happened here")
    steady = taught([("network", text)] * 20)
    mixed = taught([("network", text), ("disk", text)] * 20)
    one, other = predict(steady, text), predict(mixed, text)
    assert one is not None and one.confidence >= 0.85
    assert other is None or other.confidence < 0.5


def test_only_predictions_that_came_true_count_for_a_type() -> None:
    text = report("something vague happened here")
    known = taught([("network", text)] * 6 + [("disk", text)] * 30)
    record = known.types["network"], known.types["disk"]
    assert (record[0].right, record[0].wrong) == (5, 6)
    assert (record[1].right, record[1].wrong) == (24, 0)


def test_half_of_the_text_must_be_known() -> None:
    known = taught([("network", report("peer vanished from the mesh"))] * 40)
    texts = "peer vanished mesh", "peer vanished mesh alpha beta", "peer vanished mesh alpha beta gamma delta omega"
    sure = [found.confidence if (found := predict(known, report(text))) else 0.0 for text in texts]
    assert sure[0] == sure[1] >= 0.9
    assert 0 < sure[2] < 0.7


def test_text_that_is_mostly_strange_states_little() -> None:
    known = taught(lessons(120))
    strange = predict(known, report("peer " + " ".join(f"word{'abcdefghij'[n]}" for n in range(10))))
    assert strange is None or strange.confidence < 0.7
    assert predict(known, report("entirely different matters of another world")) is None


def test_it_names_the_words_that_said_so() -> None:
    told = predict(taught(lessons(120)), report("lost the mesh link at n7"))
    assert told is not None
    assert told.words[0] in tokens(report("lost the mesh link at n7"))
    assert "mesh" in " ".join(told.words)


def test_replicas_that_read_the_same_rows_say_the_same() -> None:
    known = taught(lessons(60))
    again = model(reversed([*known.types.values()]))
    for _, each in lessons(20, seed=3):
        assert predict(known, each) == predict(again, each)


def test_a_lesson_changes_only_the_rows_it_returns() -> None:
    known = taught(lessons(60))
    after, rows = teach(known, "network", report("peer n5 vanished from the mesh"))
    changed = {row.type for row in rows}
    assert changed == {"network"}
    assert {name: after.types[name] for name in after.types if name not in changed} == {
        name: known.types[name] for name in known.types if name not in changed
    }
    assert teach(known, "network", report("??? 1 2 3", type_=""))[1] == ()


def test_old_lessons_fade_and_what_is_new_takes_their_place() -> None:
    old, new = report("the old way it broke"), report("quite another trouble nowadays")
    known = taught([("disk", old)] * int(FADE_AT + 20))
    assert known.types["disk"].lessons < FADE_AT
    known = taught_more(known, [("network", old)] * 900 + [("network", new)] * 20)
    told = predict(known, old)
    assert told is not None and told.type == "network"


def taught_more(known: Model, told: list[tuple[str, Report]]) -> Model:
    for kind, each in told:
        known, _ = teach(known, kind, each)
    return known


def test_what_is_kept_is_bounded_and_holds_no_text() -> None:
    rng = random.Random(5)  # noqa: S311 - makes examples
    known = UNTRAINED
    for _ in range(300):
        words = " ".join("".join(rng.choices("abcdefghij", k=8)) for _ in range(200))
        known, _ = teach(known, "disk", report(words))
    row = known.types["disk"]
    assert len(row.features) <= MOST_FEATURES
    assert all(isinstance(number, int) for number in row.features)


def test_features_are_the_same_everywhere() -> None:
    assert [feature(token) for token in ("mesh", "mesh link")] == [14934, 62186]


@given(some.text(max_size=3000), some.text(max_size=300))
def test_no_text_breaks_it(message: str, type_: str) -> None:
    told = report(message, type_)
    known, rows = teach(taught(lessons(12)), "disk", told)
    found = predict(known, told)
    assert found is None or 0 <= found.confidence <= 1
    assert all(row.lessons >= 0 for row in rows)


@pytest.mark.parametrize("types", [1, 64])
def test_a_prediction_is_quick_whatever_was_learned(types: int) -> None:
    rng = random.Random(7)  # noqa: S311 - makes examples
    rows = [
        Counts(f"type{n}", 400, {rng.randrange(1 << 16): 2.0 for _ in range(MOST_FEATURES)}, 9, 1) for n in range(types)
    ]
    known, text = model(rows), report("word " * 400 + " ".join("".join(rng.choices("abc", k=9)) for _ in range(200)))
    predict(known, text)
    began = time.process_time()
    predict(known, text)
    assert time.process_time() - began < 0.05
