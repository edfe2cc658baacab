"""Responses of channels: the message was accepted, refused for good, or could not be accepted for now.

Rule: whatever a channel says in its own words is cut, made printable and freed of its own secrets before it is kept.
"""

from __future__ import annotations

LONGEST = 300


class DeliveryError(Exception):
    """The channel did not accept the message; `permanent` means that trying again is idle."""

    def __init__(self, detail: str, *, permanent: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.permanent = permanent
        self.retry_after = retry_after


def printable(text: str, secret: str = "") -> str:
    """One line of somebody else's text, without the secret it may repeat."""
    clean = text.replace(secret, "(hidden)") if secret else text
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in clean).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
