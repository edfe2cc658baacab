"""How command groups behave: `prunella plugins` lists, like `prunella plugins list`; `prunella policy` shows."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

HELP = frozenset({"-h", "--help"})


class ListByDefault(TyperGroup):
    """Runs `list` when no command was named."""

    default = "list"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the default in front of bare options."""
        if not args or (args[0].startswith("-") and args[0] not in HELP):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


class ShowByDefault(ListByDefault):
    """Runs `show` when no command was named: there is only one of it."""

    default = "show"


def command_group(text: str, default: str = "list") -> typer.Typer:
    """A command group that lists by default, or shows."""
    kind = ShowByDefault if default == "show" else ListByDefault
    return typer.Typer(cls=kind, help=text, no_args_is_help=False, pretty_exceptions_enable=False)
