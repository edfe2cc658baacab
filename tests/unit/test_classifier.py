"""The classifier: taught by verified outcomes alone, honest about how sure it is, bounded, and able to forget."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from services.queue.classifier import (
    DECAY_AT,
    MIN_EXAMPLES,
    MOST_FEATURES,
    Classifier,
    TypeCounts,
    feature,
    from_rows,
    predict,
    tokens,
    train,
)
from services.queue.report import Report

TEXTS = {
    "network": ("peer {} vanished from the mesh", "mesh link to {} is flapping", "lost the mesh link at {}"),
    "disk": ("volume {} rejected the write", "journal of volume {} cannot grow", "volume {} remounted without writes"),
    "memory": ("cache {} grew beyond its arena", "arena {} exhausted by cache", "evicting cache {} was too slow"),
}


def report(message: str, type_: str = "Error") -> Report:
    return Report("r", "p", "m", "relay", "1", type_, message)


def examples(count: int, seed: int = 1) -> list[tuple[str, Report]]:
    rng = random.Random(seed)  # noqa: S311 - makes examples
    error_types = [rng.choice(sorted(TEXTS)) for _ in range(count)]
    return [(kind, report(rng.choice(TEXTS[kind]).format(f"n{rng.randrange(1000)}"))) for kind in error_types]


def trained(reported: list[tuple[str, Report]]) -> Classifier:
    classifier_ = Classifier()
    for kind, each in reported:
        classifier_, _ = train(classifier_, kind, each)
    return classifier_


def test_it_says_nothing_before_it_was_taught_enough() -> None:
    assert predict(Classifier(), report("peer a vanished")) is None
    few = trained([("network", report("peer a vanished"))] * (MIN_EXAMPLES - 1))
    assert predict(few, report("peer a vanished")) is None


def test_confidence_rises_with_predictions_that_came_true() -> None:
    sure = []
    for count in (4, 8, 16, 32):
        reported = predict(
            trained([("network", report("peer a vanished from the mesh"))] * count), report("peer vanished mesh")
        )
        assert reported is not None
        sure.append(reported.confidence)
    assert sure == sorted(sure)
    assert sure[0] < 0.7 <= sure[-1]


def test_it_learns_to_tell_types_apart() -> None:
    classifier_ = trained(examples(120))
    fresh = examples(100, seed=2)
    reported = [(kind, predict(classifier_, each)) for kind, each in fresh]
    sure = [(kind, found) for kind, found in reported if found and found.confidence >= 0.7]
    assert len(sure) > 80
    assert sum(kind == found.type for kind, found in sure) == len(sure)


def test_wrong_predictions_cost_confidence() -> None:
    text = report("something vague happened here")
    steady = trained([("network", text)] * 20)
    mixed = trained([("network", text), ("disk", text)] * 20)
    one, other = predict(steady, text), predict(mixed, text)
    assert one is not None and one.confidence >= 0.85
    assert other is None or other.confidence < 0.5


def test_only_predictions_that_came_true_count_for_a_type() -> None:
    text = report("something vague happened here")
    classifier_ = trained([("network", text)] * 6 + [("disk", text)] * 30)
    record = classifier_.types["network"], classifier_.types["disk"]
    assert (record[0].correct, record[0].incorrect) == (5, 6)
    assert (record[1].correct, record[1].incorrect) == (24, 0)


def test_half_of_the_text_must_be_known() -> None:
    classifier_ = trained([("network", report("peer vanished from the mesh"))] * 40)
    texts = "peer vanished mesh", "peer vanished mesh alpha beta", "peer vanished mesh alpha beta gamma delta omega"
    sure = [found.confidence if (found := predict(classifier_, report(text))) else 0.0 for text in texts]
    assert sure[0] == sure[1] >= 0.9
    assert 0 < sure[2] < 0.7


def test_text_that_is_mostly_strange_states_little() -> None:
    classifier_ = trained(examples(120))
    strange = predict(classifier_, report("peer " + " ".join(f"word{'abcdefghij'[n]}" for n in range(10))))
    assert strange is None or strange.confidence < 0.7
    assert predict(classifier_, report("entirely different matters of another world")) is None


def test_it_names_the_words_that_said_so() -> None:
    reported = predict(trained(examples(120)), report("lost the mesh link at n7"))
    assert reported is not None
    assert reported.terms[0] in tokens(report("lost the mesh link at n7"))
    assert "mesh" in " ".join(reported.terms)


def test_replicas_that_read_the_same_rows_say_the_same() -> None:
    classifier_ = trained(examples(60))
    again = from_rows(reversed([*classifier_.types.values()]))
    for _, each in examples(20, seed=3):
        assert predict(classifier_, each) == predict(again, each)


def test_a_lesson_changes_only_the_rows_it_returns() -> None:
    classifier_ = trained(examples(60))
    after, rows = train(classifier_, "network", report("peer n5 vanished from the mesh"))
    changed = {row.type for row in rows}
    assert changed == {"network"}
    assert {name: after.types[name] for name in after.types if name not in changed} == {
        name: classifier_.types[name] for name in classifier_.types if name not in changed
    }
    assert train(classifier_, "network", report("??? 1 2 3", type_=""))[1] == ()


def test_old_lessons_fade_and_what_is_new_takes_their_place() -> None:
    old, new = report("the old way it broke"), report("quite another trouble nowadays")
    classifier_ = trained([("disk", old)] * int(DECAY_AT + 20))
    assert classifier_.types["disk"].examples < DECAY_AT
    classifier_ = trained_more(classifier_, [("network", old)] * 900 + [("network", new)] * 20)
    reported = predict(classifier_, old)
    assert reported is not None and reported.type == "network"


def trained_more(classifier_: Classifier, reported: list[tuple[str, Report]]) -> Classifier:
    for kind, each in reported:
        classifier_, _ = train(classifier_, kind, each)
    return classifier_


def test_what_is_kept_is_bounded_and_holds_no_text() -> None:
    rng = random.Random(5)  # noqa: S311 - makes examples
    classifier_ = Classifier()
    for _ in range(300):
        terms = " ".join("".join(rng.choices("abcdefghij", k=8)) for _ in range(200))
        classifier_, _ = train(classifier_, "disk", report(terms))
    row = classifier_.types["disk"]
    assert len(row.features) <= MOST_FEATURES
    assert all(isinstance(number, int) for number in row.features)


def test_features_are_the_same_everywhere() -> None:
    assert [feature(token) for token in ("mesh", "mesh link")] == [14934, 62186]


@given(some.text(max_size=3000), some.text(max_size=300))
def test_no_text_breaks_it(message: str, type_: str) -> None:
    reported = report(message, type_)
    classifier_, rows = train(trained(examples(12)), "disk", reported)
    found = predict(classifier_, reported)
    assert found is None or 0 <= found.confidence <= 1
    assert all(row.examples >= 0 for row in rows)


@pytest.mark.parametrize("types", [1, 64])
def test_a_prediction_is_quick_whatever_was_learned(types: int) -> None:
    rng = random.Random(7)  # noqa: S311 - makes examples
    rows = [
        TypeCounts(f"type{n}", 400, {rng.randrange(1 << 16): 2.0 for _ in range(MOST_FEATURES)}, 9, 1)
        for n in range(types)
    ]
    classifier_, text = (
        from_rows(rows),
        report("word " * 400 + " ".join("".join(rng.choices("abc", k=9)) for _ in range(200))),
    )
    predict(classifier_, text)
    began = time.process_time()
    predict(classifier_, text)
    assert time.process_time() - began < 0.05
