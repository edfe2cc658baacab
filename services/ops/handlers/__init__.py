"""Door 1, someone asked: timeline and traces, overview, figures and stories, annotations, notifications, audit log."""

from services.ops.context import ServiceContext
from services.ops.handlers.annotations import AnnotationHandlers
from services.ops.handlers.audit import AuditHandlers
from services.ops.handlers.dead_letters import DeadLetterHandlers
from services.ops.handlers.kpis import KpiHandlers
from services.ops.handlers.notifications import NotificationHandlers
from services.ops.handlers.overview import OverviewHandlers
from services.ops.handlers.sibling_cache import SiblingCache
from services.ops.handlers.stories import StoryHandlers
from services.ops.handlers.timeline import TimelineHandlers


class OpsHandlers(
    TimelineHandlers,
    OverviewHandlers,
    KpiHandlers,
    StoryHandlers,
    AnnotationHandlers,
    NotificationHandlers,
    DeadLetterHandlers,
    AuditHandlers,
):
    """prunella.v1.OpsService."""

    def __init__(self, ctx: ServiceContext) -> None:
        self.ctx = ctx
        self.siblings = SiblingCache(ctx.clock, ctx.sibling)
