"""The settings of a plane that shows the demo: everything as in earnest, only sooner.

Rule: beats come each second so that stories take seconds, an agent that hears no commit goes back after 20 s, a try
that failed is repeated after seconds and twice at most, what tools healed counts as verified after 4 s without a
recurrence, and a plugin that was stopped without a word of its return is missed after 20 s. No threshold, gate or
policy differs from the defaults; what a scenario changes, it changes as a person would.
"""

from __future__ import annotations

from pathlib import Path

ENVIRONMENT = {
    "INGEST_BEAT_SECONDS": "1",
    "INGEST_AWAY_SECONDS": "20",
    "PATCHER_DEAD_MAN_SECONDS": "20",
    "QUEUE_WATCH_SECONDS": "4",
    "QUEUE_RETRY_SECONDS": "1,5",
    "DECIDER_PLAYBOOK": str(Path(__file__).with_name("playbook.toml")),
}
