"""The timeline: every fact in the order of its time, at a position that rises."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """A row of the timeline with its position; `label` is what people call its plugin, empty when unknown."""

    position: int
    fact: str
    payload: bytes
    trace: str
    label: str


@dataclass(frozen=True, slots=True)
class TimelineFilter:
    """Which rows of the timeline; empty fields match all."""

    plugin: str = ""
    incident: str = ""
    facts: tuple[str, ...] = ()
