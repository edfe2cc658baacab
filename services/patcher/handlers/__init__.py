"""Door 1, someone asked: policy and kill switches, releases, attempts and permits."""

from services.patcher.handlers.attempts import AttemptHandlers
from services.patcher.handlers.policy import PolicyHandlers
from services.patcher.handlers.releases import ReleaseHandlers


class PatcherHandlers(PolicyHandlers, ReleaseHandlers, AttemptHandlers):
    """prunella.v1.PatcherService."""
