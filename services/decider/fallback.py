"""The last rung: what the first version of the loop did when SIRA was silent.

Rule: more than half of the webhooks fail → config_fix, 0.60; more than 50 errors → notify_ops, 0.50; otherwise
notify_ops, 0.30. None of them reaches the confidence automation needs by default, so an outage of SIRA never changes
a plugin.
"""

from collections.abc import Mapping

from services.decider.decision import Action, Opinion

FAIL_RATE = "webhook_fail_rate"
# The first of these figures that is there counts as the errors of a day.
ERRORS = ("errors_last_24h", "errors_24h", "errors")


def heuristics(figures: Mapping[str, float]) -> tuple[Opinion, ...]:
    """What the rule says to these figures, surest first; the last one always tells people."""
    rate = figures.get(FAIL_RATE, 0.0)
    errors = next((figures[name] for name in ERRORS if name in figures), 0.0)
    found = []
    if rate > 0.5:
        found.append(Opinion(Action.CONFIG_FIX, "", 0.6, f"webhook_fail_rate {rate:.2f} is above 0.50"))
    if errors > 50:
        found.append(Opinion(Action.NOTIFY_OPS, "", 0.5, f"{errors:g} errors are more than 50"))
    else:
        found.append(Opinion(Action.NOTIFY_OPS, "", 0.3, "no rule knows this symptom"))
    return tuple(found)
