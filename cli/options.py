"""The options and arguments that commands share: one type for each, so that the same word means the same everywhere.

What differs between commands is only what an option narrows down; that sentence is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from cli import completion

Json = Annotated[bool, typer.Option("--json", help="Print proto JSON instead of a table.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0 for all.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Look again every two seconds, until Ctrl-C.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why, in one sentence; it goes on the timeline.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Package = Annotated[str, typer.Option("--package", help="Only of this package.")]
Severity = Annotated[str, typer.Option("--severity", help="Only low, medium, high or critical.")]
FILE = typer.Argument(exists=True, dir_okay=False, readable=True)


def plugin(text: str) -> Any:
    """A plugin by label or id, such as `Only of this plugin: label or id.`"""
    return typer.Option("--plugin", "-p", help=text, autocompletion=completion.plugin)


def incident(text: str) -> Any:
    """An incident by its id."""
    return typer.Option("--incident", "-i", help=text, autocompletion=completion.incident)


def fact(text: str) -> Any:
    """A kind of fact."""
    return typer.Option("--fact", "-f", help=text, autocompletion=completion.fact)


def _id(what: str, complete: Callable[[str], Any]) -> Any:
    return typer.Argument(help=f"Id of the {what}, or a unique part of it.", autocompletion=complete)


def _version(collection: str, complete: Callable[[str], Any]) -> Any:
    text = f"packages/{{package}}/{collection}/{{version}}, or package@version."
    return typer.Argument(help=text, autocompletion=complete)


PluginOf = Annotated[str, plugin("Only of this plugin: label or id.")]
PluginOn = Annotated[str, plugin("Only on this plugin: label or id.")]
PluginFor = Annotated[str, plugin("Only for this plugin: label or id.")]
PluginAbout = Annotated[str, plugin("Only about this plugin: label or id.")]
IncidentFor = Annotated[str, incident("Only for this incident.")]
IncidentAbout = Annotated[str, incident("Only about this incident.")]
Facts = Annotated[list[str] | None, fact("Only this fact; repeatable.")]

AttemptName = Annotated[str, _id("attempt", completion.attempt)]
DecisionName = Annotated[str, _id("decision", completion.decision)]
IncidentName = Annotated[str, _id("incident", completion.incident)]
NotificationName = Annotated[str, _id("notification", completion.notification)]
ProposalName = Annotated[str, _id("proposal", completion.proposal)]
ReportName = Annotated[str, _id("error report", completion.report)]
RolloutName = Annotated[str, _id("rollout", completion.rollout)]
StormName = Annotated[str, _id("storm", completion.storm)]
TaskName = Annotated[str, _id("task", completion.task)]
ReleaseName = Annotated[str, _version("releases", completion.release)]
ConfigurationName = Annotated[str, _version("configurations", completion.configuration)]
