"""Policy: the bounds people set for automation, and the gates that keep them."""

from services.patcher.policy.fields import BOUNDS, Difference, as_json, check, diff
from services.patcher.policy.gates import ask, gate, in_flight_limit, is_canary, learning, objections
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
    GateInputs,
    GateRequest,
    Hold,
    Isolation,
    Policy,
    Probation,
    Refuse,
    Reply,
    RollBack,
    Severity,
    scopes,
)
from services.patcher.policy.preview import Preview, Replay, compare, preview
from services.patcher.policy.steps import Step, step

__all__ = [
    "BOOKKEEPING", "BOUNDS", "CAPPED", "EDITABLE", "GLOBAL", "HOLDING_GATES", "KILL_SWITCH", "PLUGIN_BUSY",
    "POLICY_GATES", "Action", "Allow", "Answer", "Ask", "Difference", "GateInputs", "GateRequest", "Hold",
    "Isolation", "Policy", "Preview", "Probation", "Refuse", "Replay", "Reply", "RollBack", "Severity", "Step",
    "as_json", "ask", "check", "compare", "diff", "gate", "in_flight_limit", "is_canary", "learning", "objections",
    "preview", "scopes", "step",
]  # fmt: skip
