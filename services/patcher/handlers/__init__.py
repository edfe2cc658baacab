"""Door 1, someone asked: policy and kill switches, releases, configurations, attempts, approvals and permits."""

from services.patcher.handlers.approvals import ApprovalHandlers
from services.patcher.handlers.attempts import AttemptHandlers
from services.patcher.handlers.configurations import ConfigurationHandlers
from services.patcher.handlers.kill_switches import KillSwitchHandlers
from services.patcher.handlers.manual_attempts import ManualAttemptHandlers
from services.patcher.handlers.policy import PolicyHandlers
from services.patcher.handlers.releases import ReleaseHandlers
from services.patcher.handlers.roll_back_recent import RollBackRecentHandlers
from services.patcher.handlers.rollouts import RolloutHandlers


class PatcherHandlers(
    PolicyHandlers,
    KillSwitchHandlers,
    ReleaseHandlers,
    ConfigurationHandlers,
    AttemptHandlers,
    ManualAttemptHandlers,
    ApprovalHandlers,
    RollBackRecentHandlers,
    RolloutHandlers,
):
    """prunella.v1.PatcherService."""
