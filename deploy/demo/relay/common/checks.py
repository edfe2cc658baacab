"""The smoke tests of the relay: webhooks sent through a running release to a verifying sink.

Rule: a webhook passes when the relay says 200 and the sink took exactly the bytes that were sent. Inputs that failed in
the field (the JSON list in $PRUNELLA_REPLAY) are tests as well. One JSON line for each test; exit code 0 only if all
passed.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from .probe import healthy
from .settings import DESTINATION_HEADER, load
from .sink import CheckSink

# A plain event: compact, ASCII, whole numbers.
PLAIN = {"a small event": b'{"id":"evt_1","type":"order.paid","amount":1250,"currency":"EUR"}'}
# What shops really send.
RICH = {
    "names with accents": '{"id":"evt_2","type":"customer.created","name":"Zoë Müller"}'.encode(),
    "a pretty-printed event": b'{\n  "id": "evt_3",\n  "type": "order.shipped"\n}',
    "amounts to the cent": b'{"id":"evt_4","type":"order.paid","amount":12.50,"rate":1.10}',
    "an escaped slash": b'{"id":"evt_5","type":"page.viewed","url":"https:\\/\\/shop.example\\/cart"}',
}


def post(port: int, body: bytes, sink: str) -> int:
    """Sends one webhook to the relay; 0 when there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/webhook", body, {DESTINATION_HEADER: sink})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def check(port: int, body: bytes, sink: CheckSink) -> str:
    """What is wrong with how one webhook went; empty when nothing is."""
    before = len(sink.taken)
    status = post(port, body, sink.url)
    if status != 200:
        return f"the relay answered {status}" if status else "the relay did not answer"
    if sink.taken[before:] != [body]:
        return "the sink took other bytes than were sent"
    return ""


def replays() -> dict[str, bytes]:
    """The inputs that failed in the field."""
    path = os.environ.get("PRUNELLA_REPLAY", "")
    inputs = json.loads(Path(path).read_text()) if path and Path(path).exists() else []
    return {f"replay {number}": str(text).encode() for number, text in enumerate(inputs, 1)}


def run(events: Mapping[str, bytes]) -> None:
    """Runs the suite against the relay on $PORT and exits."""
    port = int(os.environ["PORT"])
    results = [("health", "" if healthy(port) else "the probe failed")]
    sink = CheckSink(load().secret)
    try:
        results += [(name, check(port, body, sink)) for name, body in {**events, **replays()}.items()]
    finally:
        sink.close()
    for name, wrong in results:
        print(json.dumps({"test": name, "ok": not wrong, "detail": wrong}), flush=True)
    sys.exit(1 if any(wrong for _, wrong in results) else 0)
