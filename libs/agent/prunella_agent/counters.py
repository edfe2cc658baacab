"""What one process has counted so far, as the datagram its supervisor reads."""

from __future__ import annotations

import json
import os
from collections import deque

MAX_SAMPLES = 3


class Counters:
    """What one process has counted so far."""

    def __init__(self) -> None:
        self.process = os.urandom(8).hex()
        self.release = ""
        self.errors = 0
        self.attempts = 0
        self.failures = 0
        self.signature_failures = 0
        self.numbers: dict[str, float] = {}
        self.samples: deque[str] = deque(maxlen=MAX_SAMPLES)
        self.version = 0

    def datagram(self) -> bytes:
        """All counters as one JSON datagram."""
        body = {
            "process": self.process,
            "pid": os.getpid(),
            "release": self.release,
            "errors": self.errors,
            "attempts": self.attempts,
            "failures": self.failures,
            "signature_failures": self.signature_failures,
            "numbers": self.numbers,
            "samples": list(self.samples),
        }
        return json.dumps(body, separators=(",", ":")).encode()
