"""Lists come in pages, and a page token belongs to the query it was made for.

A token carries the sort key of the last row and a digest of the query's other arguments. It is opaque, not secret: it
only says where to go on, so it needs no signature, but a token of another query is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from libs.common.errors import Invalid
from libs.common.timestamps import bounded

Row = TypeVar("Row")

DEFAULT_SIZE = 50
LARGEST_SIZE = 500
LONGEST_TOKEN = 4096

# These may change from page to page without making it another query.
_PAGING = frozenset({"page_size", "page_token"})


class ListRequest(Protocol):
    """What every request of a list has."""

    page_size: int
    page_token: str


@dataclass(frozen=True)
class Page:
    """One page of a list: its size, and the sort key `after` which it begins (None for the first page)."""

    query: Mapping[str, Any]
    size: int
    after: list[Any] | None

    @property
    def limit(self) -> int:
        """Rows to read: one more than the page holds, which says whether another page follows."""
        return self.size + 1

    def cut(self, rows: Sequence[Row], key: Callable[[Row], Sequence[Any]]) -> tuple[list[Row], str]:
        """The rows of this page and the token of the next one, which is empty after the last page."""
        if len(rows) <= self.size:
            return list(rows), ""
        return list(rows[: self.size]), token(self.query, key(rows[self.size - 1]))


def page(request: ListRequest, query: Mapping[str, Any], *key: type, largest: int = LARGEST_SIZE) -> Page:
    """The page that a request wants of the list of this query, whose sort key has values of these types.

    A UUID is handed on as text. Raises Invalid for a negative size and for a token that is damaged or of another query.
    """
    after = open_token(request.page_token, query)
    if after is not None:
        try:
            after = [_typed(value, kind) for value, kind in zip(after, key, strict=True)]
        except (ValueError, TypeError, AttributeError) as error:
            raise _damaged() from error
    return Page(query, min(page_size(request.page_size), largest), after)


def page_size(requested: int) -> int:
    """Rows on a page: 50 when nothing was asked, at most 500; Invalid when negative."""
    if requested < 0:
        raise Invalid(
            f"page_size must not be negative, it was {requested}",
            reason="BAD_PAGE_SIZE",
            field="page_size",
            requested=str(requested),
        )
    return min(requested, LARGEST_SIZE) or DEFAULT_SIZE


def token(query: Mapping[str, Any], after: Sequence[Any]) -> str:
    """The token that goes on after the row with this sort key (text, numbers, booleans, UUIDs, aware times)."""
    body = json.dumps([_digest(query), [_pack(value) for value in after]], separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).rstrip(b"=").decode()


def open_token(text: str, query: Mapping[str, Any]) -> list[Any] | None:
    """The sort key to go on after, None on the first page; Invalid when damaged or of another query."""
    if not text:
        return None
    digest, after = _read(text)
    if digest != _digest(query):
        raise Invalid(
            "page_token belongs to a list with other arguments; start again without it",
            reason="PAGE_TOKEN_OF_ANOTHER_QUERY",
            field="page_token",
        )
    return after


def _read(text: str) -> tuple[str, list[Any]]:
    try:
        if len(text) > LONGEST_TOKEN:
            raise ValueError
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        digest, after = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if not isinstance(digest, str) or not isinstance(after, list):
            raise TypeError
        return digest, [_unpack(value) for value in after]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error, Invalid) as wrong:
        raise _damaged() from wrong


def _damaged() -> Invalid:
    return Invalid("page_token is damaged; start again without it", reason="BAD_PAGE_TOKEN", field="page_token")


def _typed(value: Any, kind: type) -> Any:
    if kind is UUID:
        return str(UUID(value))
    if type(value) is not kind:
        raise TypeError
    return value


def _digest(query: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in query.items() if key not in _PAGING}
    canonical = json.dumps(rest, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _pack(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"t": value.isoformat()}
    return str(value) if isinstance(value, UUID) else value


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        return bounded(datetime.fromisoformat(value["t"]), "page_token")
    if isinstance(value, list):
        raise TypeError
    return value
