"""Lists come in pages, and a page token belongs to the query it was made for.

A token carries the sort key of the last row and a digest of the query's other arguments. It is opaque, not secret: it
only says where to go on, so it needs no signature, but a token of another query is refused.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from libs.common.errors import Invalid

DEFAULT_SIZE = 50
LARGEST_SIZE = 500
LONGEST_TOKEN = 4096

# These may change from page to page without making it another query.
_PAGING = frozenset({"page_size", "page_token"})


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
    """The token that goes on after the row with this sort key (text, numbers, booleans, aware moments)."""
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
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error) as wrong:
        raise Invalid(
            "page_token is not one of ours; start again without it", reason="BAD_PAGE_TOKEN", field="page_token"
        ) from wrong


def _digest(query: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in query.items() if key not in _PAGING}
    canonical = json.dumps(rest, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _pack(value: Any) -> Any:
    return {"t": value.isoformat()} if isinstance(value, datetime) else value


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        return datetime.fromisoformat(value["t"])
    if isinstance(value, list):
        raise TypeError
    return value
