"""`prunella`: everything a person can ask or tell the plane from a terminal.

Rule: a command imports what it needs when it runs, so that help and completion answer at once. Exit codes: 0 done, 1 it
failed, 2 the line was wrong, 3 no plane answers.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cli import (
    approvals,
    attempts,
    audit,
    configurations,
    dead_letters,
    decisions,
    demo,
    doctor,
    errors,
    incidents,
    kill_switch,
    kpis,
    load,
    notifications,
    overview,
    plugins,
    policy,
    proposals,
    queue,
    releases,
    report,
    rollback,
    rollouts,
    status,
    stories,
    storms,
    strategies,
    timeline,
    token,
    trace,
    up,
)
from cli.mcp import command as mcp

# gRPC's own lines about connections that come and go would stand between ours; errors reach people as sentences.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

app = typer.Typer(
    name="prunella",
    help="A self-healing control plane for fleets of plugins.",
    epilog="Ids may be shortened to any unique beginning or end; plugins also go by their label, such as shop-7.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(requested: bool) -> None:
    if requested:
        from deploy.local.installation import version

        typer.echo(version())
        raise typer.Exit


@app.callback()
def prunella(
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A self-healing control plane for fleets of plugins."""


START, LOOK, ACT = "Run", "Look", "Act"
app.command("up", rich_help_panel=START)(up.up)
app.add_typer(demo.app, name="demo", rich_help_panel=START)
app.command("status", rich_help_panel=START)(status.status)
app.command("doctor", rich_help_panel=START)(doctor.doctor)
app.command("load", rich_help_panel=START)(load.load)
app.command("token", rich_help_panel=START)(token.token)
app.command("mcp", rich_help_panel=START)(mcp.mcp)
app.command("overview", rich_help_panel=LOOK)(overview.overview)
app.command("kpis", rich_help_panel=LOOK)(kpis.kpis)
app.add_typer(stories.app, name="stories", rich_help_panel=LOOK)
app.command("report", rich_help_panel=LOOK)(report.report)
app.add_typer(plugins.app, name="plugins", rich_help_panel=LOOK)
app.add_typer(incidents.app, name="incidents", rich_help_panel=LOOK)
app.add_typer(decisions.app, name="decisions", rich_help_panel=LOOK)
app.add_typer(attempts.app, name="attempts", rich_help_panel=LOOK)
app.add_typer(errors.app, name="errors", rich_help_panel=LOOK)
app.add_typer(queue.app, name="queue", rich_help_panel=LOOK)
app.add_typer(strategies.app, name="strategies", rich_help_panel=LOOK)
app.add_typer(storms.app, name="storms", rich_help_panel=LOOK)
app.command("timeline", rich_help_panel=LOOK)(timeline.timeline)
app.add_typer(audit.app, name="audit", rich_help_panel=LOOK)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=LOOK)
app.add_typer(notifications.app, name="notifications", rich_help_panel=LOOK)
app.command("trace", rich_help_panel=LOOK)(trace.trace)
app.add_typer(kill_switch.app, name="kill-switch", rich_help_panel=ACT)
app.add_typer(policy.app, name="policy", rich_help_panel=ACT)
app.command("approvals", rich_help_panel=ACT)(approvals.approvals)
app.command("approve", rich_help_panel=ACT)(approvals.approve)
app.command("reject", rich_help_panel=ACT)(approvals.reject)
app.add_typer(rollouts.app, name="rollout", rich_help_panel=ACT)
app.command("rollback", rich_help_panel=ACT)(rollback.rollback)
app.add_typer(releases.app, name="releases", rich_help_panel=ACT)
app.add_typer(configurations.app, name="configurations", rich_help_panel=ACT)
app.add_typer(proposals.app, name="proposals", rich_help_panel=ACT)

if __name__ == "__main__":
    app()
