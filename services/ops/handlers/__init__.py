"""Door 1, someone asked: the timeline and its traces, what people see at a glance, what they note, the dead letters."""

from services.ops.context import ServiceContext
from services.ops.handlers.audit import AuditHandlers
from services.ops.handlers.dead_letters import DeadLetterHandlers
from services.ops.handlers.insight import InsightHandlers
from services.ops.handlers.notifications import NotificationHandlers
from services.ops.handlers.people import PeopleHandlers
from services.ops.handlers.questions import Questions
from services.ops.handlers.timeline import TimelineHandlers


class OpsHandlers(
    TimelineHandlers,
    InsightHandlers,
    PeopleHandlers,
    NotificationHandlers,
    DeadLetterHandlers,
    AuditHandlers,
):
    """prunella.v1.OpsService."""

    def __init__(self, ctx: ServiceContext) -> None:
        self.ctx = ctx
        self.questions = Questions(ctx.clock, ctx.sibling)
