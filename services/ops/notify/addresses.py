"""Addresses of channels: what may stand in one, and what of it people may see again.

Rule: an address names a scheme, a host and nothing that is secret; secrets are typed, sealed and never shown again.
A secret stays when the address it was typed for stays; whoever sends mail elsewhere types its password again.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from services.ops.notify.model import Channel, Kind, Security

LONGEST = 2000
HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}))*\.?")
MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251})[A-Za-z0-9]")
RECIPIENTS = 50
# The prefix and the lengths are those of standardwebhooks.com.
PREFIX, LEAST_KEY, LONGEST_KEY = "whsec_", 24, 64
REMEDY = "make one with: echo whsec_$(openssl rand -base64 32)"
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def channel_errors(channel: Channel) -> Iterator[tuple[str, str]]:
    """What is wrong with a channel: the field and the rule it breaks."""
    if channel.kind is Kind.EMAIL:
        yield from _mail_errors(channel)
    elif channel.kind is Kind.WEBHOOK:
        yield from _url_errors(channel.url, "url")
        if not channel.secret and not channel.sealed:
            yield "secret", f"the key messages are signed with is missing; {REMEDY}"
        elif channel.secret and not signing_key(channel.secret):
            yield "secret", f"{PREFIX} and {LEAST_KEY} to {LONGEST_KEY} bytes in base64; {REMEDY}"
    elif channel.secret:
        yield from _url_errors(channel.secret, "url", secure=True)
    elif not channel.sealed:
        yield "url", "the address Slack gave for the incoming webhook is missing"


def with_secret(new: Channel, old: Channel | None) -> Channel:
    """The channel with the secret that was typed earlier, when none was typed now and it still fits."""
    if new.secret or old is None or old.kind is not new.kind:
        return new
    if new.kind is Kind.EMAIL and (new.host, new.port, new.username) != (old.host, old.port, old.username):
        return new
    return replace(new, sealed=old.sealed, url=old.url if new.kind is Kind.SLACK else new.url)


def redacted_url(url: str) -> str:
    """The part of a secret address that may be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}/…"


def signing_key(secret: str) -> bytes:
    """The key in a signing secret; empty when it is none."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return key if secret.startswith(PREFIX) and LEAST_KEY <= len(key) <= LONGEST_KEY else b""


def _url_errors(url: str, field: str, *, secure: bool = False) -> Iterator[tuple[str, str]]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        yield field, "is no address; write, say, https://hooks.example.com/prunella"
        return
    if len(url) > LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        yield field, f"at most {LONGEST} printable characters of ASCII"
    elif parts.scheme not in {"http", "https"} or not _is_host(host):
        yield field, "is no address; write, say, https://hooks.example.com/prunella"
    elif parts.username is not None or parts.password is not None:
        yield field, "must not carry a user or password; it would be shown to everybody"
    elif secure and parts.scheme != "https" and host not in LOCAL:
        yield field, "must begin with https://, since whoever reads the address may post to it"


def _mail_errors(channel: Channel) -> Iterator[tuple[str, str]]:
    if not _is_host(channel.host):
        yield "host", f"{channel.host[:60]!r} is no host; write, say, smtp.example.com"
    if not 1 <= channel.port <= 65535:
        yield "port", "must be between 1 and 65535; 587 for STARTTLS, 465 for TLS"
    if not MAIL.fullmatch(channel.sender):
        yield "sender", f"{channel.sender[:60]!r} is no mail address; write, say, prunella@example.com"
    if not 1 <= len(channel.recipients) <= RECIPIENTS:
        yield "recipients", f"1 to {RECIPIENTS} mail addresses"
    for recipient in channel.recipients:
        if not MAIL.fullmatch(recipient):
            yield "recipients", f"{recipient[:60]!r} is no mail address; write, say, on-call@example.com"
    typed = channel.secret or channel.sealed
    if channel.username and not typed:
        yield "password", "is missing; it is typed again when host, port or user name change"
    if typed and not channel.username:
        yield "username", "is missing beside the password"
    if channel.username and channel.security is Security.NONE and channel.host not in LOCAL:
        yield "security", "a password never travels openly; choose starttls or tls"
    if len(channel.username) > 200 or len(channel.secret) > 500 or not channel.username.isprintable():
        yield "username", "at most 200 printable characters, the password at most 500"


def _is_host(host: str) -> bool:
    if HOST.fullmatch(host):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
