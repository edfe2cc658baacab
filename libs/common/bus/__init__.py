"""The bus: facts leave with their transaction and have their effect once in every consumer.

PostgreSQL is the truth and JetStream the fast path: whatever NATS loses, repeats or reorders costs latency only.
"""

from libs.common.bus.connection import Bus
from libs.common.bus.consumer import Consumer, Once, Reaction
from libs.common.bus.dead_letters import list_dead_letters, redrive
from libs.common.bus.streams import provision
from libs.common.facts import fact, fact_name

__all__ = ["Bus", "Consumer", "Once", "Reaction", "fact", "fact_name", "list_dead_letters", "provision", "redrive"]
