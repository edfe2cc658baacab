"""Many rows in one statement: a list for each field, under the field's name."""

from collections.abc import Iterable, Sequence
from typing import Any


def columns(rows: Iterable[Any], fields: str) -> dict[str, Sequence[Any]]:
    """The values of some fields (names with spaces between them) of every row, field by field."""
    rows = list(rows)
    return {field: [getattr(row, field) for row in rows] for field in fields.split()}
