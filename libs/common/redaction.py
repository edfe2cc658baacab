"""Which names mean a secret, and an environment as it may be shown.

Rule: names decide, since values look like anything; of an address only the credential is secret. Better one redaction
too many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

REDACTED: Final = "[redacted]"
SECRET: Final = re.compile(
    r"secret|password|passwd|token|credential|private|authorization|cookie|webhook$|webhook_url|dsn|api_?key"
    r"|(^|_)keys?($|_)",
    re.IGNORECASE,
)
# Public halves, which people need to compare.
PUBLIC: Final = re.compile(r"release_keys$|public_key", re.IGNORECASE)
CREDENTIAL: Final = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"'<>]+@", re.IGNORECASE)
# What servers repeat of a request they refuse: keys by their usual beginnings, and values beside such a name.
REPEATED: Final = re.compile(
    r"(?P<before>\bbearer\s{1,4})[^\s\"',;]{4,}|\b(?:sk|pk|rk|key|pat|ghp|xox[a-z])[-_][A-Za-z0-9_*-]{6,}"
    r"|(?P<named>(?:api[_ -]?key|token|secret|password)[\"']?\s{0,4}(?:[:=]|provided:|is)\s{0,4}[\"']?)[^\s\"',;}]{4,}",
    re.IGNORECASE,
)
# Variables of ours and of the servers; nobody needs the rest of an environment.
SHOWN_PREFIXES: Final = (
    "PRUNELLA_",
    "INGEST_",
    "DECIDER_",
    "PATCHER_",
    "QUEUE_",
    "OPS_",
    "DATABASE_URL",
    "NATS_URL",
    "OTEL_",
)


def is_secret(name: str) -> bool:
    """Whether the name of a variable or field means a secret."""
    plain = name.replace("-", "_")
    return bool(SECRET.search(plain)) and not PUBLIC.search(plain)


def redacted_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Our variables of an environment, without what is secret."""
    return {name: _redacted(name, value) for name, value in sorted(environ.items()) if name.startswith(SHOWN_PREFIXES)}


def redacted_text(text: str, *secrets: str) -> str:
    """A text from elsewhere without these secrets, and without what looks like a key or a credential."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, REDACTED)
    text = CREDENTIAL.sub(rf"\1{REDACTED}@", text)
    return REPEATED.sub(lambda found: f"{found['before'] or found['named'] or ''}{REDACTED}", text)


def _redacted(name: str, value: str) -> str:
    return REDACTED if value and is_secret(name) else CREDENTIAL.sub(rf"\1{REDACTED}@", value)
