"""agent_degraded: the plugin may be well, but its host hinders the agent, which then cannot change anything."""

from __future__ import annotations

from services.ingest.beat import AgentCondition
from services.ingest.detectors.detector import Detector
from services.ingest.finding import Finding, Severity
from services.ingest.observation import Observation

TYPE = "agent_degraded"
BIT = 512
# What a person does about it; `{}` is the folder, file or program. A condition unknown here is shown as it came.
REMEDIES = {
    "disk_full": "free space in {} or enlarge its disk",
    "disk_read_only": "mount the disk of {} writable again",
    "disk_failing": "look at the disk under {}, it fails",
    "permission_denied": "give the agent's user its rights to {} back",
    "file_missing": "restore {}",
    "too_many_open_files": "raise the limit on open files for {}",
    "out_of_memory": "give {} more memory or processes",
    "program_missing": "install {} again",
}
UNKNOWN = "look at {} on its host"
SEVERE = frozenset({"disk_failing"})


def _sentence(condition: AgentCondition) -> str:
    subject = condition.subject or "the agent"
    detail = f" ({condition.detail})" if condition.detail else ""
    return f"{condition.type} at {subject}{detail}: {REMEDIES.get(condition.type, UNKNOWN).format(subject)}"


def _due(seen: Observation) -> bool:
    return bool(seen.beat.conditions) or bool(seen.state.open_types & BIT)


def _judge(seen: Observation) -> Finding | None:
    conditions = seen.beat.conditions
    if not conditions:
        return None
    severe = any(condition.type in SEVERE for condition in conditions)
    summary = "; ".join(map(_sentence, conditions))
    figures = (("conditions", float(len(conditions))),)
    return Finding(TYPE, Severity.HIGH if severe else Severity.MEDIUM, summary, figures)


DETECTOR = Detector(TYPE, BIT, _due, _judge, well=lambda _seen: True)
