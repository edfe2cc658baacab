"""What must not leave the machine, and how it is taken out of texts.

Rule: two nets. What is known to be secret here (keys kept by the plane, values of variables whose names mean a secret,
passwords in addresses) is taken out wherever it stands; what only looks like a secret (a credential in an address, a
bearer or service token, a webhook's signing secret, a private key) is taken out as well. Better a hole too many.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from libs.common.redaction import CREDENTIAL, REDACTED, is_secret

SHORTEST = 6  # anything shorter would also be a word of an innocent text
LOOKS = (
    (CREDENTIAL, rf"\1{REDACTED}@"),
    (re.compile(r"\b(Bearer|Basic|Service|Plugin)\s+(?:[\w.-]+:)?[A-Za-z0-9._~+/=-]{16,}"), rf"\1 {REDACTED}"),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]+"), REDACTED),
    (re.compile(r"https://hooks\.slack\.com/\S+"), REDACTED),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL), REDACTED),
    (
        re.compile(
            r"((?:secret|password|passwd|token|credential|private_key|authorization|api_?key)\w*[\"']?\s*[:=]\s*[\"']?)"
            r"(?!\[redacted\])[^\s\"',;&}]{6,}",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
)
FILES = 5000
LARGEST_FILE, LARGEST_KEY = 1 << 20, 4096
# What databases keep is theirs, and large; texts of plugins are too many.
FOREIGN = frozenset({"nats", "pg", "postgresql", "pgdata", "logs", "slots"})


class Redactor:
    """Takes secrets out of texts; `learn` adds some."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.learn(known)

    def learn(self, secrets: Iterable[str]) -> None:
        """From now on these are taken out, too, also as they stand in an address."""
        for secret in secrets:
            if len(secret.strip()) >= SHORTEST:
                self._known |= {secret.strip(), quote(secret.strip(), safe=""), json.dumps(secret.strip())[1:-1]}
        # The longest first: one secret may be the beginning of another.
        ordered = sorted(self._known, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE) if ordered else None

    def text(self, text: str) -> str:
        """The text with holes."""
        if self._pattern:
            text = self._pattern.sub(REDACTED, text)
        for looks, hole in LOOKS:
            text = looks.sub(hole, text)
        return text


def in_environment(environ: Mapping[str, str]) -> Iterator[str]:
    """Secrets among variables: by their names, and passwords in any address."""
    for name, value in environ.items():
        if is_secret(name):
            yield value
            if name.endswith("_FILE"):
                yield from _lines(Path(value))
        yield from in_address(value)


def in_address(text: str) -> Iterator[str]:
    """The user's password in an address, if it is one."""
    if "://" not in text:
        return
    try:
        parts = urlsplit(text)
        found = [parts.password, *(value for name, value in parse_qsl(parts.query) if "password" in name)]
    except ValueError:
        return
    for password in filter(None, found):
        yield password
        yield unquote(password)


def in_folder(folder: Path) -> Iterator[str]:
    """Secrets in the files of a state folder: values under names that mean one, and whole files that hold one alone."""
    for path in _files(folder):
        try:
            size = path.stat().st_size
            if path.suffix == ".json" and size <= LARGEST_FILE:
                yield from in_values(json.loads(path.read_text()))
            elif is_secret(path.name.replace(".", "_")) and size <= LARGEST_KEY:
                yield from _lines(path)
        except (OSError, ValueError):
            continue


def in_values(value: Any, *, inside: bool = False) -> Iterator[str]:
    """Texts under names that mean a secret, however deep, and passwords of addresses."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from in_values(one, inside=inside or is_secret(str(name)))
    elif isinstance(value, list):
        for one in value:
            yield from in_values(one, inside=inside)
    elif isinstance(value, str):
        yield from in_address(value)
        if inside:
            yield value


def _files(folder: Path) -> Iterator[Path]:
    left = FILES
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in sorted(folders) if name not in FOREIGN]
        for name in sorted(files)[:left]:
            yield Path(place) / name
        left -= len(files)
        if left <= 0:
            return


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text().split()
    except (OSError, ValueError):
        return
