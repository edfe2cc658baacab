"""Every SQL statement of ingest; rows and dataclasses.

Rule: locks are taken in the order plugin, plugin state, incident, command, pair of a storm.
"""

from typing import Any

from libs.common.paging import Page


def after(page: Page) -> dict[str, Any]:
    """A page of a list ordered by id, as LIST statements take it."""
    return {"after": page.after[0] if page.after else "", "limit": page.limit}
