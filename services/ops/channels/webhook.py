"""Webhooks: JSON posted to an address, signed so that the receiver knows who wrote it and when.

Rule: the signature is that of Standard Webhooks 1.0 (standardwebhooks.com): HMAC-SHA256 over `id.timestamp.body`, in
the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`; the id stays the same in every repeat and the
timestamp is that of the try. An answer of 2xx took it; 408, 425, 429 and 5xx are tried again, anything else refuses it.
Nothing is followed elsewhere, and of the answer no more than 4 KiB is read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx2

from services.ops.channels.responses import DeliveryError, printable
from services.ops.notify.addresses import signing_key
from services.ops.notify.message import Message
from services.ops.notify.model import Notice

READ = 4096
AGAIN = frozenset({408, 425, 429})


def body(message: Message) -> bytes:
    """The message as JSON; docs/notifications.md names the fields."""
    content = {
        "type": "prunella.test" if message.test else "prunella.notification",
        "timestamp": message.time.isoformat(),
        "data": {
            "id": message.id,
            "notification": f"notifications/{message.notification}",
            "route": message.route,
            "step": message.step,
            "severity": message.severity.name.lower(),
            "title": message.title,
            "asks": message.asks,
            "facts": message.facts,
            "kinds": dict(message.kinds),
            "lines": [_line(line) for line in message.lines],
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _line(line: Notice) -> dict[str, Any]:
    return {
        "event": line.event,
        "time": line.time.isoformat(),
        "fact": line.fact,
        "severity": line.severity.name.lower(),
        "headline": line.headline,
        "plugin": line.plugin,
        "merchant": line.merchant,
        "incident": line.incident,
        "command": line.command,
    }


def signed(secret: str, id_: str, payload: bytes, now: datetime) -> dict[str, str]:
    """The headers that prove who wrote a payload and when."""
    timestamp = str(int(now.timestamp()))
    content = b".".join((id_.encode(), timestamp.encode(), payload))
    proof = base64.b64encode(hmac.new(signing_key(secret), content, hashlib.sha256).digest()).decode()
    return {"webhook-id": id_, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{proof}"}


async def post(
    client: httpx2.AsyncClient, url: str, payload: bytes, headers: Mapping[str, str], *, secret: str = ""
) -> str:
    """What the other side said. Raises DeliveryError."""
    sent = {"content-type": "application/json", "user-agent": "prunella", "accept-encoding": "identity", **headers}
    try:
        async with client.stream("POST", url, content=payload, headers=sent) as response:
            detail = f"{response.status_code} {printable(await _beginning(response), secret)}".strip()
            if response.is_success:
                return detail
            status, after = response.status_code, response.headers.get("retry-after", "")
    except httpx2.TimeoutException as error:
        raise DeliveryError("no answer in time") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise DeliveryError(printable(f"{type(error).__name__}: {error}", secret)) from error
    again = status >= 500 or status in AGAIN
    wait = float(after) if after.isascii() and after.isdecimal() else 0.0
    raise DeliveryError(detail, permanent=not again, retry_after=wait)


async def _beginning(response: httpx2.Response) -> str:
    read = b""
    async for chunk in response.aiter_bytes():
        read += chunk
        if len(read) >= READ:
            break
    return read[:READ].decode("utf-8", "replace")
