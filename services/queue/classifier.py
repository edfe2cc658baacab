"""The classifier of report texts, trained by verified outcomes and by nothing else.

Rule: when a report was healed by a strategy and stayed healed, it is an example of the strategy's type. Words and pairs
of neighbouring words of type and message are hashed into 65,536 features and counted by type (multinomial naive Bayes
with Laplace smoothing; McCallum and Nigam 1998); no text is kept. How sure a prediction is comes from how the type's
own earlier predictions did: before each example the classifier predicts, and correct and incorrect predictions are
counted. The confidence is the lower 90 % bound of that record, times the posterior, times how much of the text is known
(all of it from one half on), so that a type nobody predicted yet states little and strange text states less. Old
examples decay: when a type has 400, all its counts are halved. A type's counts are one row, so replicas share it.
"""

import functools
import itertools
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from libs.common.beta_posterior import Outcomes, floor_hundredths
from services.queue.report import Report

FEATURES = 1 << 16
# Of a type's features the commonest are kept.
MOST_FEATURES = 4096
MOST_TOKENS = 64
CHARACTERS = 2048
DECAY_AT = 400.0
MIN_EXAMPLES = 3
MIN_COUNT = 0.05
SMOOTHING = 0.1
KNOWN_ENOUGH = 0.5
MOST_TERMS = 5

_WORD = re.compile(r"[a-z]{3,24}", re.ASCII)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])", re.ASCII)
_STOP_WORDS = frozenset(
    "the and for was not with this that from has have had are were been but can cannot could its into when while "  # noqa: SIM905
    "error exception failed failure".split()
)


@dataclass(frozen=True)
class TypeCounts:
    """One type: its examples, how often each feature was in one, and how predictions of it did."""

    type: str
    examples: float = 0.0
    features: Mapping[int, float] = field(default_factory=dict)
    correct: float = 0.0
    incorrect: float = 0.0

    @functools.cached_property
    def total(self) -> float:
        """All features together."""
        return sum(self.features.values())


@dataclass(frozen=True)
class Classifier:
    """The counts of every type that was trained."""

    types: Mapping[str, TypeCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """The likeliest type, how sure (0 to 1), after how many examples, and the terms that decided, strongest first."""

    type: str
    confidence: float
    examples: int
    terms: tuple[str, ...]


def from_rows(rows: Iterable[TypeCounts]) -> Classifier:
    """The classifier in the rows of the store."""
    return Classifier({row.type: row for row in rows})


def tokens(report: Report) -> tuple[str, ...]:
    """Words and pairs of words, each once, in the order of the text; at most 64 of each."""
    text = _HUMP.sub(" ", f"{report.type[:200]} {report.message[:CHARACTERS]}").lower()
    terms = [word for word in _WORD.findall(text) if word not in _STOP_WORDS][:MOST_TOKENS]
    pairs = [f"{one} {other}" for one, other in itertools.pairwise(terms)]
    return tuple(dict.fromkeys([*terms, *pairs]))


def feature(token: str) -> int:
    """The feature a token is counted as; the same in every process and release."""
    return zlib.crc32(token.encode()) % FEATURES


def predict(classifier: Classifier, report: Report) -> Prediction | None:
    """What the report most likely is, or None when there are too few examples or nothing in it is known."""
    found = {feature(token): token for token in reversed(tokens(report))}
    likeliest = _likeliest(classifier, list(found))
    if likeliest is None:
        return None
    counts, posterior = likeliest
    seen = {number: counts.features[number] for number in found if number in counts.features}
    if not seen or counts.examples < MIN_EXAMPLES:
        return None
    share = min(1.0, len(seen) / len(found) / KNOWN_ENOUGH)
    sure = floor_hundredths(Outcomes(counts.correct, counts.incorrect).confidence * posterior * share)
    strongest = sorted(seen, key=lambda number: (-_weight(classifier, counts, number), found[number]))
    return Prediction(counts.type, sure, round(counts.examples), tuple(found[n] for n in strongest[:MOST_TERMS]))


def train(classifier: Classifier, type: str, report: Report) -> tuple[Classifier, tuple[TypeCounts, ...]]:  # noqa: A002 - the word of the wire
    """The classifier after a report of this type was verifiably healed, and the rows that changed."""
    found = {feature(token) for token in tokens(report)}
    if not found:
        return classifier, ()
    changed = {type: _added(classifier.types.get(type, TypeCounts(type)), found)}
    guess = _likeliest(classifier, list(found))
    # An example of something it never saw proves nothing about its predictions.
    if guess and guess[0].features.keys() & found:
        predicted = guess[0].type
        counts = changed.get(predicted, guess[0])
        good = predicted == type
        changed[predicted] = _scored(counts, correct=1.0 if good else 0.0, incorrect=0.0 if good else 1.0)
    rows = tuple(_decayed(counts) for counts in changed.values())
    return Classifier({**classifier.types, **{row.type: row for row in rows}}), rows


def _likeliest(classifier: Classifier, found: list[int]) -> tuple[TypeCounts, float] | None:
    """The type with the highest posterior, and that posterior among all types."""
    if not classifier.types or not found:
        return None
    examples = sum(counts.examples for counts in classifier.types.values())
    scores: dict[str, float] = {}
    for name, counts in sorted(classifier.types.items()):
        room = counts.total + SMOOTHING * FEATURES
        score = math.log((counts.examples + 1) / (examples + len(classifier.types)))
        score += sum(math.log((counts.features.get(number, 0.0) + SMOOTHING) / room) for number in found)
        scores[name] = score
    best = max(scores, key=lambda name: scores[name])
    shares = sum(math.exp(score - scores[best]) for score in scores.values())
    return classifier.types[best], 1.0 / shares


def _weight(classifier: Classifier, counts: TypeCounts, number: int) -> float:
    """How much more a feature belongs to this type than to all others together, as a log ratio."""
    others = [other for other in classifier.types.values() if other.type != counts.type]
    own = (counts.features.get(number, 0.0) + SMOOTHING) / (counts.total + SMOOTHING * FEATURES)
    theirs = sum(other.features.get(number, 0.0) for other in others) + SMOOTHING
    return math.log(own * (sum(other.total for other in others) + SMOOTHING * FEATURES) / theirs)


def _added(counts: TypeCounts, found: set[int]) -> TypeCounts:
    features = dict(counts.features)
    for number in sorted(found):
        features[number] = features.get(number, 0.0) + 1.0
    if len(features) > MOST_FEATURES:
        # Down to half, so that sorting is rare.
        commonest = sorted(features, key=lambda number: -features[number])[: MOST_FEATURES // 2]
        features = {number: features[number] for number in commonest}
    return TypeCounts(counts.type, counts.examples + 1, features, counts.correct, counts.incorrect)


def _scored(counts: TypeCounts, *, correct: float, incorrect: float) -> TypeCounts:
    return TypeCounts(
        counts.type, counts.examples, counts.features, counts.correct + correct, counts.incorrect + incorrect
    )


def _decayed(counts: TypeCounts) -> TypeCounts:
    if counts.examples < DECAY_AT:
        return counts
    features = {number: value / 2 for number, value in counts.features.items() if value / 2 >= MIN_COUNT}
    return TypeCounts(counts.type, counts.examples / 2, features, counts.correct / 2, counts.incorrect / 2)
