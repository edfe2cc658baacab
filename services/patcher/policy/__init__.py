"""Policy: the bounds people set for automation, and the gates that keep them."""

from services.patcher.policy.fields import BOUNDS, Difference, check, diff, told
from services.patcher.policy.gates import EFFECTS, ask, gate, in_flight_limit, is_canary, is_major, learning, objections
from services.patcher.policy.model import (
    BOOKKEEPING,
    CAPPED,
    EDITABLE,
    GLOBAL,
    HOLDING_GATES,
    KILL_SWITCH,
    PLUGIN_BUSY,
    POLICY_GATES,
    Action,
    Allow,
    Answer,
    Ask,
    Hold,
    Policy,
    Refuse,
    Reply,
    Severity,
    Situation,
    TakeBack,
    Watch,
    Wish,
    scopes,
)
from services.patcher.policy.preview import Preview, Turn, compare, would

__all__ = [
    "BOOKKEEPING", "BOUNDS", "CAPPED", "EDITABLE", "EFFECTS", "GLOBAL", "HOLDING_GATES", "KILL_SWITCH", "PLUGIN_BUSY",
    "POLICY_GATES",
    "Action", "Allow", "Answer", "Ask", "Difference", "Hold", "Policy", "Preview", "Refuse", "Reply", "Severity",
    "Situation", "TakeBack", "Turn", "Watch", "Wish", "ask", "check", "compare", "diff", "gate", "in_flight_limit",
    "is_canary", "is_major", "learning", "objections", "scopes", "told", "would",
]  # fmt: skip
