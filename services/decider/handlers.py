"""Door 1, someone asked: decisions with their reasons, previews, what was learned, the playbook. All only read."""

from typing import Any
from uuid import UUID

from libs.common import paging
from libs.common.errors import Invalid, known
from libs.common.names import id_of, new_id, parse
from prunella.v1 import decider_pb2, decider_pb2_grpc
from services.decider import wire
from services.decider.context import ServiceContext, consider, versions
from services.decider.decision import Decision, State
from services.decider.features import features
from services.decider.store import decisions, learning


class DeciderHandlers(decider_pb2_grpc.DeciderServiceServicer):
    """prunella.v1.DeciderService."""

    def __init__(self, ctx: ServiceContext) -> None:
        self.ctx = ctx

    async def GetDecision(  # noqa: N802 - the proto names it
        self, request: decider_pb2.GetDecisionRequest, _context: Any
    ) -> decider_pb2.GetDecisionResponse:
        """One decision. Raises Invalid for a bad name, NotFound for an unknown one."""
        return decider_pb2.GetDecisionResponse(decision=wire.decision(await self._decision(request.name)))

    async def ListDecisions(  # noqa: N802 - the proto names it
        self, request: decider_pb2.ListDecisionsRequest, _context: Any
    ) -> decider_pb2.ListDecisionsResponse:
        """Decisions, newest first. Raises Invalid for bad paging or filters."""
        query = {"list": "decisions", "incident": id_of(request.incident), "plugin": id_of(request.plugin)}
        page = paging.page(request, query, UUID)
        (after,) = page.after or [""]
        async with self.ctx.database.reading() as tx:
            found = await decisions.page(
                tx, incident=query["incident"], plugin=query["plugin"], after=after, limit=page.limit
            )
        found, more = page.cut(found, lambda decision: [decision.id])
        return decider_pb2.ListDecisionsResponse(
            decisions=[wire.decision(decision) for decision in found], next_page_token=more
        )

    async def ExplainDecision(  # noqa: N802 - the proto names it
        self, request: decider_pb2.ExplainDecisionRequest, _context: Any
    ) -> decider_pb2.ExplainDecisionResponse:
        """A decision with its story in sentences. Raises Invalid for a bad name, NotFound for an unknown one."""
        found = await self._decision(request.name)
        made_by = ", ".join(f"{what} {version}" for what, version in sorted(found.versions.items()))
        return decider_pb2.ExplainDecisionResponse(
            decision=wire.decision(found), story=[*found.choice.story, f"Decided by {made_by}."]
        )

    async def PreviewDecision(  # noqa: N802 - the proto names it
        self, request: decider_pb2.PreviewDecisionRequest, _context: Any
    ) -> decider_pb2.PreviewDecisionResponse:
        """What would be decided now, without asking SIRA; nothing is stored. Raises Invalid naming the field."""
        situation = wire.situation_to_preview(request)
        seed = new_id()
        async with self.ctx.database.reading() as tx:
            choice = await consider(tx, self.ctx, situation, seed, None)
            preview = Decision(
                id="",
                incident="",
                plugin="",
                merchant="",
                state=State.MADE,
                situation=situation,
                choice=choice,
                versions=versions(self.ctx, None),
                features=features(situation, seed) | self._would_ask(choice.confident),
                cause="",
                traceparent="",
                create_time=tx.now,
            )
        return decider_pb2.PreviewDecisionResponse(decision=wire.decision(preview))

    async def GetLearning(  # noqa: N802 - the proto names it
        self, request: decider_pb2.GetLearningRequest, _context: Any
    ) -> decider_pb2.GetLearningResponse:
        """Verified outcomes of every remedy in a situation. Raises Invalid when the situation is not complete."""
        for field in ("package", "type", "from_release"):
            if not getattr(request, field):
                raise Invalid(f"{field} is needed", reason="FIELD_MISSING", field=field)
        async with self.ctx.database.reading() as tx:
            found = await learning.learned(tx, request.package, request.type, request.from_release)
        return decider_pb2.GetLearningResponse(
            outcomes=[wire.outcomes(remedy, outcomes) for remedy, outcomes in found.items()]
        )

    async def GetPlaybook(  # noqa: N802 - the proto names it
        self, _request: decider_pb2.GetPlaybookRequest, _context: Any
    ) -> decider_pb2.GetPlaybookResponse:
        """The playbook in force, as it was read at the start."""
        playbook = self.ctx.playbook
        return decider_pb2.GetPlaybookResponse(version=playbook.version, text=playbook.text)

    def _would_ask(self, confident: bool) -> dict[str, str]:
        return {} if confident or self.ctx.sira is None else {"sira": "would be asked"}

    async def _decision(self, name: str) -> Decision:
        decision = parse("decisions", name)
        async with self.ctx.database.reading() as tx:
            return known(await decisions.get(tx, decision), "decision", decision)
