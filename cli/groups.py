"""How command groups behave: `prunella plugins` lists, like `prunella plugins list`."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

HELP = frozenset({"-h", "--help"})


class ListByDefault(TyperGroup):
    """Runs `list` when no command was named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts `list` in front of bare options."""
        if not args or (args[0].startswith("-") and args[0] not in HELP):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def group(text: str) -> typer.Typer:
    """A command group that lists by default."""
    return typer.Typer(cls=ListByDefault, help=text, no_args_is_help=False, pretty_exceptions_enable=False)
