"""What was learned: a classifier of report texts, taught by verified outcomes and by nothing else.

Rule: when a report was healed by a strategy and stayed healed, its words teach the strategy's type. Words and pairs of
neighbouring words of type and message are hashed into 65,536 features and counted by type (multinomial naive Bayes with
Laplace smoothing; McCallum and Nigam 1998); no text is kept. How sure a prediction is comes from how the type's own
earlier predictions did: before each lesson the model is asked, and right and wrong answers are counted. The confidence
is the lower 90 % bound of that record, times the posterior, times how much of the text is known (all of it from one
half on), so that a type nobody predicted yet states little and strange text states less. Old lessons fade: when
a type has 400, all its counts are halved. A type's counts are one row, so replicas share what was learned.
"""

import functools
import itertools
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from libs.common.beta_posterior import Outcomes, stated
from services.queue.report import Report

FEATURES = 1 << 16
# Of a type's features the commonest are kept.
MOST_FEATURES = 4096
MOST_TOKENS = 64
CHARACTERS = 2048
FADE_AT = 400.0
LEAST_LESSONS = 3
FAINTEST = 0.05
SMOOTHING = 0.1
KNOWN_ENOUGH = 0.5
MOST_WORDS = 5

_WORD = re.compile(r"[a-z]{3,24}", re.ASCII)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])", re.ASCII)
_EMPTY = frozenset(
    "the and for was not with this that from has have had are were been but can cannot could its into when while "  # noqa: SIM905
    "error exception failed failure".split()
)


@dataclass(frozen=True)
class Counts:
    """What was learned of one type: lessons, how often each feature was in one, and how its predictions did."""

    type: str
    lessons: float = 0.0
    features: Mapping[int, float] = field(default_factory=dict)
    right: float = 0.0
    wrong: float = 0.0

    @functools.cached_property
    def total(self) -> float:
        """All features together."""
        return sum(self.features.values())


@dataclass(frozen=True)
class Model:
    """The counts of every type that was taught."""

    types: Mapping[str, Counts] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """The likeliest type, how sure (0 to 1), after how many lessons, and the words that say so, strongest first."""

    type: str
    confidence: float
    lessons: int
    words: tuple[str, ...]


NOTHING_LEARNED = Model()


def model(rows: Iterable[Counts]) -> Model:
    """The model in the rows of the store."""
    return Model({row.type: row for row in rows})


def tokens(report: Report) -> tuple[str, ...]:
    """Words and pairs of words, each once, in the order of the text; at most 64 of each."""
    text = _HUMP.sub(" ", f"{report.type[:200]} {report.message[:CHARACTERS]}").lower()
    words = [word for word in _WORD.findall(text) if word not in _EMPTY][:MOST_TOKENS]
    pairs = [f"{one} {other}" for one, other in itertools.pairwise(words)]
    return tuple(dict.fromkeys([*words, *pairs]))


def feature(token: str) -> int:
    """The feature a token is counted as; the same in every process and release."""
    return zlib.crc32(token.encode()) % FEATURES


def predict(known: Model, report: Report) -> Prediction | None:
    """What the report most likely is, or None when too little was learned or nothing in it is known."""
    found = {feature(token): token for token in reversed(tokens(report))}
    likeliest = _likeliest(known, list(found))
    if likeliest is None:
        return None
    counts, posterior = likeliest
    seen = {number: counts.features[number] for number in found if number in counts.features}
    if not seen or counts.lessons < LEAST_LESSONS:
        return None
    share = min(1.0, len(seen) / len(found) / KNOWN_ENOUGH)
    sure = stated(Outcomes(counts.right, counts.wrong).confidence * posterior * share)
    strongest = sorted(seen, key=lambda number: (-_weight(known, counts, number), found[number]))
    return Prediction(counts.type, sure, round(counts.lessons), tuple(found[n] for n in strongest[:MOST_WORDS]))


def teach(known: Model, type: str, report: Report) -> tuple[Model, tuple[Counts, ...]]:  # noqa: A002 - the word of the wire
    """The model after a report of this type was verifiably healed, and the rows that changed."""
    found = {feature(token) for token in tokens(report)}
    if not found:
        return known, ()
    changed = {type: _added(known.types.get(type, Counts(type)), found)}
    guess = _likeliest(known, list(found))
    # A lesson on something it never heard of says nothing about how good its predictions are.
    if guess and guess[0].features.keys() & found:
        asked = guess[0].type
        counts = changed.get(asked, guess[0])
        good = asked == type
        changed[asked] = _scored(counts, right=1.0 if good else 0.0, wrong=0.0 if good else 1.0)
    rows = tuple(_faded(counts) for counts in changed.values())
    return Model({**known.types, **{row.type: row for row in rows}}), rows


def _likeliest(known: Model, found: list[int]) -> tuple[Counts, float] | None:
    """The type with the highest posterior, and that posterior among all types."""
    if not known.types or not found:
        return None
    lessons = sum(counts.lessons for counts in known.types.values())
    scores: dict[str, float] = {}
    for name, counts in sorted(known.types.items()):
        room = counts.total + SMOOTHING * FEATURES
        score = math.log((counts.lessons + 1) / (lessons + len(known.types)))
        score += sum(math.log((counts.features.get(number, 0.0) + SMOOTHING) / room) for number in found)
        scores[name] = score
    best = max(scores, key=lambda name: scores[name])
    shares = sum(math.exp(score - scores[best]) for score in scores.values())
    return known.types[best], 1.0 / shares


def _weight(known: Model, counts: Counts, number: int) -> float:
    """How much more a feature belongs to this type than to all others together, as a log ratio."""
    others = [other for other in known.types.values() if other.type != counts.type]
    own = (counts.features.get(number, 0.0) + SMOOTHING) / (counts.total + SMOOTHING * FEATURES)
    theirs = sum(other.features.get(number, 0.0) for other in others) + SMOOTHING
    return math.log(own * (sum(other.total for other in others) + SMOOTHING * FEATURES) / theirs)


def _added(counts: Counts, found: set[int]) -> Counts:
    features = dict(counts.features)
    for number in sorted(found):
        features[number] = features.get(number, 0.0) + 1.0
    if len(features) > MOST_FEATURES:
        # Down to half, so that sorting is rare.
        kept = sorted(features, key=lambda number: -features[number])[: MOST_FEATURES // 2]
        features = {number: features[number] for number in kept}
    return Counts(counts.type, counts.lessons + 1, features, counts.right, counts.wrong)


def _scored(counts: Counts, *, right: float, wrong: float) -> Counts:
    return Counts(counts.type, counts.lessons, counts.features, counts.right + right, counts.wrong + wrong)


def _faded(counts: Counts) -> Counts:
    if counts.lessons < FADE_AT:
        return counts
    features = {number: value / 2 for number, value in counts.features.items() if value / 2 >= FAINTEST}
    return Counts(counts.type, counts.lessons / 2, features, counts.right / 2, counts.wrong / 2)
