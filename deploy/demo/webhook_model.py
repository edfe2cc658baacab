"""How the webhooks of simulated agents fare: what a release does wrong by itself, and what its surroundings do to it.

Rule: a release fails here about as often as in a real plugin of the demo. A sink that refuses does so for every plugin
of the package, whatever release it runs; a plugin that waits too short gives up on the slow answers.
"""

from __future__ import annotations

import json

from deploy.demo.simulated_agent import Slot

# Share of webhooks that a release spoils by itself.
SPOILED = {"1.2.0": 0.6, "1.2.1": 0.6, "1.2.2": 0.6, "1.3.0": 0.5}
SLOW_SECONDS = 1.0
# Few sinks are slow: too few webhooks fail for an incident of their own.
SLOW_SHARE = 0.05


class WebhookModel:
    """Decides which webhooks of simulated agents fail."""

    def __init__(self) -> None:
        # Package → share of webhooks that its sink refuses now.
        self.refused: dict[str, float] = {}

    def failure_rate(self, package: str, slot: Slot) -> float:
        """The share of webhooks that fails for a plugin that runs this slot."""
        own = SPOILED.get(slot.release, 0.0)
        waits = float(json.loads(slot.config).get("timeout_seconds", SLOW_SECONDS)) if slot.config else SLOW_SECONDS
        slow = SLOW_SHARE if waits < SLOW_SECONDS else 0.0
        return max(own, slow, self.refused.get(package, 0.0))
