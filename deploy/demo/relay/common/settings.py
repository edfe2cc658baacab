"""Where the relay forwards to, with which secret it signs, and how long it waits for an answer.

Rule: the configuration decides. Only a relay without a configured sink, or in a sandbox, forwards to where the sender
says, and then to this machine alone. A configuration that many may read leaves the secret out; then it lies in the file
`secret` of the plugin's own data.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

DESTINATION_HEADER = "Relay-To"
SANDBOX_SECRET = "relay-sandbox"  # noqa: S105 - signs nothing but what a sandbox sends to itself
TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """WebhookSink URL (empty in a sandbox), merchant secret, and how many seconds a delivery may take."""

    sink: str
    secret: bytes
    timeout_seconds: float = TIMEOUT_SECONDS

    def destination(self, wanted: str | None) -> str:
        """The URL to forward to. Raises ValueError when there is none, or one that only the configuration may name."""
        if self.sink:
            return self.sink
        if not wanted or urlsplit(wanted).hostname != "127.0.0.1":
            raise ValueError(f"no sink is configured and {DESTINATION_HEADER} names none on this machine")
        return wanted


def own_secret() -> str:
    """The secret in the plugin's data; the sandbox's where there is none."""
    path = Path(os.environ.get("PRUNELLA_DATA") or os.devnull) / "secret"
    try:
        return path.read_text().strip()
    except OSError:
        return SANDBOX_SECRET


def load() -> Settings:
    """The settings in the JSON file that PRUNELLA_CONFIG names; a missing file means a sandbox."""
    path = Path(os.environ.get("PRUNELLA_CONFIG") or os.devnull)
    text = path.read_text() if path.exists() else ""
    fields = json.loads(text or "{}")
    sandbox = bool(fields.get("sandbox"))
    return Settings(
        "" if sandbox else str(fields.get("sink", "")),
        str(fields.get("secret", SANDBOX_SECRET if sandbox else own_secret())).encode(),
        float(fields.get("timeout_seconds", TIMEOUT_SECONDS)),
    )
