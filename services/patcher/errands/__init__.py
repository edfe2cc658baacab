"""What attempts want done outside: staging, and commands. Each file ends with the table of its runners."""

from services.patcher.errands.commands import COMMANDS
from services.patcher.errands.staging import STAGING

__all__ = ["COMMANDS", "STAGING"]
