"""Door 2, something happened: reactions by what they move. The last line is the table of all."""

from libs.common.bus import Reaction
from services.patcher.reactions import attempts, rollouts, storms

REACTIONS: dict[str, Reaction] = {**attempts.REACTIONS, **storms.REACTIONS, **rollouts.REACTIONS}
