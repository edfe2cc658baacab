"""A report is one kind of error on one plugin; triage is what was understood of it.

Rule: the text of a report (type, message, stack, module, context) is what a stranger wrote. It may only ever be read,
matched and counted; nothing in it names a tool, fills an argument or gives an order. Severities have one order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

SEVERITIES = ("low", "medium", "high", "critical")


class Origin(StrEnum):
    """Which rung of the ladder classified a report."""

    PATTERN = "pattern"
    CLASSIFIER = "classifier"
    MODEL = "model"
    NONE = "none"


class Blocker(StrEnum):
    """Why no task can be made of a report; stands at the beginning of the reason it is escalated with."""

    NO_STRATEGY = "NO_STRATEGY"
    ALL_TRIED = "ALL_TRIED"
    NOT_AUTO_FIXABLE = "NOT_AUTO_FIXABLE"
    WRITE_NOT_APPROVED = "WRITE_NOT_APPROVED"
    MODEL_MAY_NOT_WRITE = "MODEL_MAY_NOT_WRITE"
    RETIRED = "RETIRED"
    UNSURE = "UNSURE"


@dataclass(frozen=True)
class Report:
    """What triage reads. `severity` is the reporter's own or empty; `tried_strategies` did not help before."""

    id: str
    plugin: str
    merchant: str
    package: str
    release: str
    type: str
    message: str
    label: str = ""
    severity: str = ""
    module: str = ""
    stack: str = ""
    fingerprint: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    occurrences: int = 1
    regressions: int = 0
    tried_strategies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Triage:
    """What was understood. A task is made when `blocker` is None; otherwise the report is escalated.

    `confidence` (0 to 1) is how sure we are of `type`; how often `strategy` helps is the strategy's own figure.
    `tools` are all the strategy calls, check included; `explanation` is one paragraph for people.
    """

    type: str
    severity: str
    auto_fixable: bool
    confidence: float
    origin: Origin
    tools: tuple[str, ...]
    estimated_seconds: float
    explanation: str
    strategy: str
    blocker: Blocker | None = None
