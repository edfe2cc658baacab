"""`prunella approve`, `reject` and `approvals`: what waits for people, and their word on exactly that.

Rule: nobody agrees to what they have not seen. The plan is shown, and its hash goes with the answer: a plan that
changed meanwhile is refused by the patcher and must be looked at again. Whoever speaks is PRUNELLA_OPERATOR.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, formatting, id_lookup, listings
from cli.command_shapes import show_answer
from cli.confirmation import confirm
from cli.options import Json, Limit, Reason, Watch, Yes
from cli.output import coloured, plain, safe, show_fields, show_json, show_table
from cli.plane_client import fail, run

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

ROLLOUTS = "rollouts/"
Subject = Annotated[
    str,
    typer.Argument(
        help="Id of the attempt, or rollouts/ID; a unique part of it is enough.", autocompletion=completion.subject
    ),
]
Role = Annotated[str, typer.Option("--role", help="The seat you fill; empty when you have one to fill.")]


def approvals(limit: Limit = 50, watch: Watch = False, json: Json = False) -> None:
    """What waits for people, newest first."""

    async def work(plane: PlaneClient) -> None:
        waiting = [one async for one in listings.attempts(plane, limit, state="awaiting_approval")]
        waiting += [one async for one in listings.rollouts(plane, limit, state="pending") if one.HasField("approval")]
        if json:
            show_json([plain(one) for one in waiting])
            return
        labels = await id_lookup.labels(plane, (one.plugin for one in waiting if one.name.startswith("attempts/")))
        now = datetime.now(UTC)
        columns = ("what", "for", "brings", "agreed", "?asked of", "answer", "?not by")
        show_table(columns, (_row(one, labels, now) for one in waiting), empty="nothing waits for people")

    run(work, watch=watch)


def approve(subject: Subject, reason: Reason, role: Role = "", yes: Yes = False, json: Json = False) -> None:
    """Agrees to the plan that is shown; with enough people it starts. Its author cannot."""
    run(lambda plane: _speak(plane, subject, reason, role, agree=True, yes=yes, json=json))


def reject(subject: Subject, reason: Reason, role: Role = "", yes: Yes = False, json: Json = False) -> None:
    """Says no to the plan that is shown; one no is enough."""
    run(lambda plane: _speak(plane, subject, reason, role, agree=False, yes=yes, json=json))


async def _speak(plane: PlaneClient, typed: str, reason: str, role: str, *, agree: bool, yes: bool, json: bool) -> None:
    found = await _found(plane, typed)
    if not found.HasField("approval"):
        fail(f"{_spoken(found)} waits for nobody: it is {found.state}")
    show_fields(_plan(found, await id_lookup.labels(plane, [getattr(found, "plugin", "")])), err=True)
    confirm(f"{'approve' if agree else 'reject'} this plan?", yes=yes)
    fields = {"name": found.name, "plan_hash": found.approval.plan_hash, "role": role, "reason": reason}
    await plane.call("patcher.ApproveAttempt" if agree else "patcher.RejectAttempt", **fields)
    show_answer(await _found(plane, found.name), _outcome, json=json)


async def _found(plane: PlaneClient, typed: str) -> Any:
    if typed.strip().startswith(ROLLOUTS):
        name = await id_lookup.resource(plane, "rollouts", typed)
        return (await plane.call("patcher.GetRollout", name=name)).rollout
    name = await id_lookup.resource(plane, "attempts", typed)
    return (await plane.call("patcher.GetAttempt", name=name)).attempt


def _spoken(subject: Any) -> str:
    return f"{'rollout' if subject.name.startswith(ROLLOUTS) else 'attempt'} {id_lookup.short(subject.name)}"


def brings(subject: Any) -> str:
    """What an attempt or a rollout brings, such as `relay: patch 1.2.0 → 2.0.0`."""
    from prunella.v1.events_pb2 import Action

    if subject.name.startswith(ROLLOUTS):
        return f"{subject.package}: {'configuration' if subject.config else 'release'} {subject.target}"
    return f"{subject.package}: {formatting.action_summary(subject, Action)}"


def _plan(subject: Any, labels: dict[str, str]) -> list[tuple[str, str]]:
    import json

    approval, now = subject.approval, datetime.now(UTC)
    plan = json.loads(approval.plan or "{}")
    scope = plan.pop("scope", [])
    to = (
        labels.get(subject.plugin, "")
        if hasattr(subject, "plugin")
        else formatting.plural(subject.figures.plugins, "plugin")
    )
    return [
        (_spoken(subject).partition(" ")[0], subject.name.rpartition("/")[2]),
        ("brings", safe(brings(subject))),
        ("to", safe(to or ", ".join(map(str, scope)))),
        *((f"plan: {name.replace('_', ' ')}", safe(value)) for name, value in plan.items() if value not in ("", None)),
        ("plan hash", approval.plan_hash),
        ("status", coloured(approval.status)),
        ("asks for", safe(f"{formatting.plural(approval.quorum, 'person')}, among them {', '.join(approval.roles)}")),
        ("said so far", safe("; ".join(map(_vote, approval.votes)) or formatting.NO_VALUE)),
        ("not by", safe(", ".join(approval.excluded))),
        ("expires", formatting.ago(approval.expire_time, now)),
        ("why asked", safe(approval.reason or subject.reason)),
    ]


def _outcome(subject: Any) -> str:
    return f"{_spoken(subject)}: {subject.approval.status}, {_count(subject.approval)}; it is {subject.state}"


def _vote(vote: Any) -> str:
    answer = "yes" if vote.approved else "no"
    return f"{vote.actor.rpartition('/')[2]} ({vote.role}) {answer}{f': {vote.reason}' if vote.reason else ''}"


def _count(approval: Any) -> str:
    return f"{sum(vote.approved for vote in approval.votes)} of {approval.quorum} agreed"


def _row(subject: Any, labels: dict[str, str], now: datetime) -> tuple[str, ...]:
    approval, single = subject.approval, hasattr(subject, "plugin")
    return (
        id_lookup.short(subject.name) if single else f"{ROLLOUTS}{id_lookup.short(subject.name)}",
        safe(labels.get(subject.plugin, "") if single else formatting.plural(subject.figures.plugins, "plugin")),
        safe(brings(subject)),
        f"{sum(vote.approved for vote in approval.votes)}/{approval.quorum}",
        safe(", ".join(approval.roles)),
        formatting.ago(approval.expire_time, now),
        safe(", ".join(name.rpartition("/")[2] for name in approval.excluded)),
    )
