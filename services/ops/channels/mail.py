"""Mail by SMTP: plain text, one message to all recipients of a channel.

Rule: the delivery's id makes the Message-ID, so that a server or reader that gets it twice can tell. STARTTLS is
demanded where it is set, never merely tried. A 5xx answer refuses the message; anything else is tried again. Recipients
a server refuses while it takes others are said in the answer.
"""

from __future__ import annotations

from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

import aiosmtplib

from services.ops.channels.responses import DeliveryError, printable
from services.ops.notify.message import Message
from services.ops.notify.model import Channel, Security
from services.ops.severity import Severity


def compose(message: Message, channel: Channel) -> EmailMessage:
    """The message as mail."""
    mail = EmailMessage()
    mail["From"] = channel.sender
    mail["To"] = ", ".join(channel.recipients)
    mail["Subject"] = printable(message.title)
    mail["Date"] = format_datetime(message.time)
    mail["Message-ID"] = f"<{message.id}@{channel.sender.rpartition('@')[2]}>"
    # What belongs to one notification is one thread, however often it escalates.
    if message.notification != message.id:
        mail["References"] = f"<{message.notification}@{channel.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    if message.severity is Severity.CRITICAL:
        mail["X-Priority"] = "1"
    mail.set_content(message.text)
    return mail


async def send(message: Message, channel: Channel, password: str, timeout: float) -> str:
    """What the server said. Raises DeliveryError; `timeout` in seconds bounds each step of the conversation."""
    client = aiosmtplib.SMTP(
        hostname=channel.host,
        port=channel.port,
        timeout=timeout,
        use_tls=channel.security is Security.TLS,
        start_tls=channel.security is Security.STARTTLS,
        username=channel.username or None,
        password=password or None,
    )
    try:
        async with client:
            refused, reply = await client.send_message(compose(message, channel))
    except aiosmtplib.SMTPRecipientsRefused as error:
        codes = [each.code for each in error.recipients]
        replies = "; ".join(_reply(each) for each in error.recipients)
        raise DeliveryError(printable(replies, password), permanent=all(code >= 500 for code in codes)) from error
    except aiosmtplib.SMTPResponseException as error:
        # 421 and 4yz pass (RFC 5321, 4.2.1).
        raise DeliveryError(printable(_reply(error), password), permanent=error.code >= 500) from error
    except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
        raise DeliveryError(printable(f"{type(error).__name__}: {error}", password)) from error
    return printable("; ".join([reply, *(f"{who} was refused: {reason}" for who, reason in refused.items())]), password)


def _reply(error: Any) -> str:
    return f"{error.code} {error.message}"
