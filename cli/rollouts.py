"""`prunella rollout`: a release or a configuration on its way to many plugins, wave by wave."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formatting, id_lookup, listings, options, rollout_progress
from cli.command_groups import command_group
from cli.command_shapes import run_change, run_list, show_answer
from cli.confirmation import confirm
from cli.options import Json, Limit, Package, Reason, RolloutName, Yes
from cli.output import coloured, plain, safe, show_json, show_table
from cli.plane_client import run
from cli.rollout_details import show_rollout

if TYPE_CHECKING:
    from cli.plane_client import PlaneClient

app = command_group("A release or a configuration on its way to many plugins.")

COLUMNS = ("rollout", "package", "target", "state", "wave", "healthy", "?against", "?began", "?took", "why")
DRAW_TIMEOUT = 60.0
ROLLBACK_SCOPES = "nothing, wave or all"
State = Annotated[str, typer.Option("--state", help="Only in this state, such as running or halted.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end; the exit status says how it ended.")]
Many = list[str] | None


@app.command()
def create(
    package: Annotated[str, typer.Argument(help="Whose plugins.")],
    target: Annotated[str, typer.Argument(help="Version of the release, or of the configuration with --config.")],
    reason: Reason,
    config: Annotated[bool, typer.Option("--config", help="The target is a configuration.")] = False,
    wave: Annotated[Many, typer.Option("--wave", help="Reach so many plugins (5) or 20%; repeatable.")] = None,
    budget: Annotated[int, typer.Option("--budget", min=0, help="In flight at once, at most; 0 for the usual.")] = 0,
    soak: Annotated[str, typer.Option("--soak", help="How long each wave is watched at its end, such as 10min.")] = "",
    stall: Annotated[str, typer.Option("--stall", help="Pause when no result came for so long.")] = "",
    start_within: Annotated[str, typer.Option("--start-within", help="Give up when it has not begun by then.")] = "",
    exposure: Annotated[int, typer.Option("--exposure", min=0, help="Results before a wave may pass.")] = 0,
    alpha: Annotated[float, typer.Option("--alpha", min=0, help="Chance of halting a good build.")] = 0.0,
    floor: Annotated[float, typer.Option("--floor", min=0, help="Broken share that is always borne.")] = 0.0,
    canary: Annotated[Many, typer.Option("--canary", help="A plugin that comes first; repeatable.")] = None,
    canary_merchant: Annotated[Many, typer.Option("--canary-merchant", help="Whose plugins come first.")] = None,
    merchant: Annotated[Many, typer.Option("--merchant", help="Only plugins of this merchant; repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, draw the waves; no change.")] = False,
    watch: Watch = False, yes: Yes = False, json: Json = False,
) -> None:  # fmt: skip
    """Draws the waves, shows them, and begins when you agree."""
    times = {"soak": soak, "stall": stall, "start_within": start_within}
    settings = {
        name: formatting.parse_duration(text, f"--{name.replace('_', '-')}") for name, text in times.items() if text
    }
    settings |= {"budget": budget, "exposure": exposure, "alpha": alpha, "floor": floor}  # type: ignore[dict-item]

    async def work(plane: PlaneClient) -> int:
        from prunella.v1.patcher_pb2 import CreateRolloutRequest

        request = CreateRolloutRequest(
            package=package, target=target, config=config, reason=reason, merchants=merchant or []
        )
        request.settings.waves.extend(wave or [])
        request.settings.canaries.extend([await id_lookup.plugin(plane, one) for one in canary or []])
        request.settings.canary_merchants.extend(canary_merchant or [])
        _settle(request.settings, settings)
        return await _create(plane, request, dry_run=dry_run, watch=watch, yes=yes, json=json)

    run(work)


async def _create(plane: PlaneClient, request: Any, *, dry_run: bool, watch: bool, yes: bool, json: bool) -> int:
    from libs.common.names import new_id

    request.validate_only = True
    drawn = (await plane.patcher.CreateRollout(request, timeout=DRAW_TIMEOUT)).rollout
    if not (dry_run and json):
        show_table(("wave", "plugins", "reached"), _waves(drawn), empty="no plugin would get it", err=not dry_run)
    if dry_run:
        if json:
            show_json(plain(drawn))
        else:
            typer.echo("nothing was changed")
        return 0
    confirm(
        f"bring {request.target} to {formatting.plural(drawn.figures.plugins, 'plugin')} of {request.package}?", yes=yes
    )
    request.validate_only, request.request_id = False, new_id()
    made = (await plane.patcher.CreateRollout(request, timeout=DRAW_TIMEOUT)).rollout
    if not (watch and json):
        show_answer(made, _begun, json=json)
    return await rollout_progress.watch(plane, made.name, json=json) if watch else 0


def _begun(made: Any) -> str:
    text = f"rollout {id_lookup.short(made.name)} is {made.state}"
    if made.HasField("approval") and made.approval.status in ("", "open"):
        return f"{text} and waits for people: prunella approve rollouts/{id_lookup.short(made.name)} --reason …"
    return f"{text}; watch it: prunella rollout show {id_lookup.short(made.name)} --watch"


@app.command("list")
def list_(
    package: Package = "", state: State = "", limit: Limit = 50, watch: options.Watch = False, json: Json = False
) -> None:
    """Rollouts, newest first."""
    run_list(
        listings.rollouts, limit, COLUMNS, _row, empty="no rollout", json=json, watch=watch, package=package,
        state=state,
    )  # fmt: skip


@app.command()
def show(
    rollout: RolloutName,
    members: Annotated[Many, typer.Option("--members", help="List members in this state, or all; repeatable.")] = None,
    watch: Watch = False,
    json: Json = False,
) -> None:
    """One rollout, wave by wave."""

    async def work(plane: PlaneClient) -> int:
        name = await id_lookup.resource(plane, "rollouts", rollout)
        if watch:
            return await rollout_progress.watch(plane, name, json=json)
        answer = await plane.call("patcher.GetRollout", name=name)
        if members:
            filters = {"name": name, "member_states": members}
            async for one in listings.pages(plane, "patcher.GetRollout", "members", 0, **filters):
                answer.members.append(one)
        if json:
            show_json(plain(answer) if members else plain(answer.rollout))
        else:
            show_rollout(answer, listed=bool(members))
        return 0

    run(work)


@app.command()
def pause(rollout: RolloutName, reason: Reason, json: Json = False) -> None:
    """Starts nothing new until it is resumed; what is in flight comes to its end."""
    _change("patcher.PauseRollout", rollout, reason, json=json)


@app.command()
def resume(rollout: RolloutName, reason: Reason, json: Json = False) -> None:
    """Goes on."""
    _change("patcher.ResumeRollout", rollout, reason, json=json)


@app.command()
def promote(rollout: RolloutName, reason: Reason, json: Json = False) -> None:
    """Vouches for the present wave, and the next one begins."""
    _change("patcher.PromoteRollout", rollout, reason, json=json)


@app.command()
def abort(
    rollout: RolloutName,
    reason: Reason,
    scope: Annotated[str, typer.Option("--roll-back", help=f"What is rolled back: {ROLLBACK_SCOPES}.")] = "wave",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Ends it, and takes back as much as is said."""
    if scope not in ("nothing", "wave", "all"):
        raise typer.BadParameter(f"use {ROLLBACK_SCOPES}", param_hint="--roll-back")
    back = {"nothing": "take nothing back", "wave": "take the present wave back", "all": "take every plugin back"}
    confirm(f"end the rollout and {back[scope]}?", yes=yes)
    _change("patcher.AbortRollout", rollout, reason, json=json, rollback_scope=scope)


def _change(rpc: str, rollout: str, reason: str, *, json: bool, **more: Any) -> None:
    run_change(rpc, "rollouts", rollout, _state, field="rollout", json=json, reason=reason, **more)


def _state(rollout: Any) -> str:
    return f"rollout {id_lookup.short(rollout.name)} is {rollout.state}"


def _settle(settings: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if name in ("soak", "stall", "start_within"):
            getattr(settings, name).FromTimedelta(value)
        elif value:
            setattr(settings, name, value)


def _waves(rollout: Any) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    reached, total = 0, max(1, sum(wave.plugins for wave in rollout.waves))
    for wave in rollout.waves:
        reached += wave.plugins
        rows.append((str(wave.number), str(wave.plugins), f"{reached} ({formatting.percent(reached / total)})"))
    return rows


def _row(rollout: Any, now: datetime) -> tuple[str, ...]:
    figures = rollout.figures
    return (
        id_lookup.short(rollout.name),
        safe(rollout.package),
        safe(f"{rollout.target}{' (configuration)' if rollout.config else ''}"),
        coloured(rollout.state),
        f"{rollout.wave}/{len(rollout.waves)}",
        f"{figures.healthy}/{figures.plugins}",
        str(figures.counted_against),
        formatting.ago(rollout.create_time, now),
        formatting.elapsed(rollout.create_time, rollout.end_time),
        safe(rollout.reason),
    )
