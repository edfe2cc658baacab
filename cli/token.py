"""`prunella token`: who you are, as a header for curl."""

from __future__ import annotations

import typer

from cli.plane_client import find, guarded


def token() -> None:
    """Prints the header that proves you to the HTTP door: curl -H "$(prunella token)" …; keep it to yourself."""

    def work() -> int:
        from libs.common.access import AUTHORIZATION, service_token

        typer.echo(f"{AUTHORIZATION}: {service_token(find().key, 'operator')}")
        return 0

    guarded(work)
