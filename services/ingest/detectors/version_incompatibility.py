"""version_incompatibility: the host lacks what the running release requires, or refused a release for that reason.

Rule: what runs although its host no longer fits is medium and may be healed; what was only refused is low, since the
plugin runs on as before. An agent that says nothing of a requirement does not meet it.
"""

from __future__ import annotations

from prunella_agent import requirements
from services.ingest.detectors.detector import Detector
from services.ingest.finding import Finding, Severity
from services.ingest.observation import Observation

TYPE = "version_incompatibility"
BIT = 128


def _due(seen: Observation) -> bool:
    return bool(seen.beat.requires or seen.beat.refused_release or seen.state.open_types & BIT)


def _judge(seen: Observation) -> Finding | None:
    beat = seen.beat
    environment = dict(beat.environment)
    lacking = requirements.unmet(dict(beat.requires), environment)
    refused = requirements.unmet(dict(beat.refused_requires), environment)
    if not lacking and not refused:
        return None
    sentences = [requirements.sentence(beat.release, lacking)] if lacking else []
    if refused:
        sentences.append(f"{requirements.sentence(beat.refused_release, refused)}, so it was refused")
    figures = (("unmet_requirements", float(len(lacking))), ("refused_requirements", float(len(refused))))
    return Finding(TYPE, Severity.MEDIUM if lacking else Severity.LOW, ". ".join(sentences), figures)


DETECTOR = Detector(TYPE, BIT, _due, _judge, well=lambda _seen: True)
