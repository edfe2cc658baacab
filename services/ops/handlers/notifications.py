"""Someone asked: what was sent to whom, who is told of what, and whether a channel works.

Rule: the settings are changed as a whole or not at all, and never by somebody who saw an older version. A test is an
errand like any other message; the handler only waits for what the other side says.
"""

# ruff: noqa: N802 - the proto names the methods

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.common import access, paging
from libs.common.database import Transaction
from libs.common.errands import send
from libs.common.errors import Invalid, NotFound, Stale, Unavailable
from libs.common.facts import NAMES
from prunella.v1 import notification_pb2, ops_pb2_grpc
from services.ops.context import SCHEMA, ServiceContext
from services.ops.errands.deliver import TEST
from services.ops.notify.addresses import with_secret
from services.ops.notify.escalation import State
from services.ops.notify.model import Channel, Settings
from services.ops.notify.settings_diff import differences
from services.ops.notify.validation import check
from services.ops.store import deliveries, notification_settings, notifications
from services.ops.wire import notification_settings as documents
from services.ops.wire import notifications as wire

TIMEOUT = 15.0
POLL = 0.1
LONGEST_REASON = 500


class NotificationHandlers(ops_pb2_grpc.OpsServiceServicer):
    """The notifications' part of OpsService."""

    ctx: ServiceContext

    async def GetNotificationSettings(
        self, _request: notification_pb2.GetNotificationSettingsRequest, _context: Any
    ) -> notification_pb2.GetNotificationSettingsResponse:
        """Who is told of what, without secrets."""
        async with self.ctx.database.reading() as reading:
            found = await notification_settings.get(reading)
        return notification_pb2.GetNotificationSettingsResponse(settings=documents.settings(found))

    async def UpdateNotificationSettings(
        self, request: notification_pb2.UpdateNotificationSettingsRequest, context: Any
    ) -> notification_pb2.UpdateNotificationSettingsResponse:
        """Replaces the settings. Raises Invalid naming what is wrong, Stale when the etag is not the newest."""
        actor, reason = access.caller(context), _reason(request.reason)
        wanted = documents.settings_of(request.settings)

        async def change(tx: Transaction) -> Settings:
            found = await notification_settings.get(tx, lock=True)
            if request.settings.etag and request.settings.etag != str(found.version):
                raise Stale(
                    f"the settings are at version {found.version} by now; read them again",
                    reason="NOTIFICATION_SETTINGS_CHANGED",
                )
            typed = replace(
                wanted, channels=tuple(with_secret(each, found.channel(each.id)) for each in wanted.channels)
            )
            check(typed, NAMES)
            sealed = replace(typed, channels=tuple(self._sealed(each) for each in typed.channels))
            changes = differences(found, sealed)
            if not changes:
                return found
            about: dict[str, Any] = {
                "version": found.version + 1,
                "update_time": tx.now,
                "updated_by": actor,
                "reason": reason,
            }
            made = replace(sealed, **about)
            await notification_settings.put(tx, made)
            tx.record(wire.settings_changed(made, changes))
            return made

        async def work(tx: Transaction) -> notification_pb2.UpdateNotificationSettingsResponse:
            return notification_pb2.UpdateNotificationSettingsResponse(settings=documents.settings(await change(tx)))

        return await self.ctx.requests.once(request, notification_pb2.UpdateNotificationSettingsResponse, work)

    def _sealed(self, channel: Channel) -> Channel:
        if not channel.secret:
            return channel
        return replace(channel, secret="", sealed=self.ctx.sender.secrets.seal(channel.secret, channel.id))

    async def TestChannel(
        self, request: notification_pb2.TestChannelRequest, context: Any
    ) -> notification_pb2.TestChannelResponse:
        """Sends a real message and answers what the other side said. Raises NotFound."""
        actor = access.caller(context)

        async def work(tx: Transaction) -> notification_pb2.TestChannelResponse:
            found = await notification_settings.get(tx)
            if found.channel(request.channel) is None:
                known = ", ".join(each.id for each in found.channels) or "there are none"
                raise NotFound(
                    f"there is no channel {request.channel[:40]!r} (known: {known})",
                    reason="UNKNOWN_CHANNEL",
                    field="channel",
                )
            sent = await send(tx, SCHEMA, TEST, request.channel, {"actor": actor}, database=self.ctx.database)
            return notification_pb2.TestChannelResponse(id=sent)

        # Kept is which test it began; what the other side said stands in the errand.
        errand = (await self.ctx.requests.once(request, notification_pb2.TestChannelResponse, work)).id
        answer = await self._result(errand)
        return notification_pb2.TestChannelResponse(
            delivered=bool(answer.get("delivered")), response=str(answer.get("response", "")), id=errand
        )

    async def _result(self, errand: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(TIMEOUT):
                while True:
                    async with self.ctx.database.reading() as reading:
                        ended, answer = await deliveries.errand_result(reading, errand)
                    if ended:
                        return answer
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise Unavailable(
                f"the test was not done within {TIMEOUT:g} s; ask again", reason="TEST_NOT_DONE", retry_after=1.0
            ) from None

    async def ListNotifications(
        self, request: notification_pb2.ListNotificationsRequest, _context: Any
    ) -> notification_pb2.ListNotificationsResponse:
        """Messages and what became of them, newest first. Raises Invalid for filters and paging that make no sense."""
        query = wire.filters(request)
        page = paging.page(request, query, datetime, UUID)
        async with self.ctx.database.reading() as reading:
            rows = await notifications.newest(reading, query, page.after, page.limit)
            rows, token = page.cut(rows, lambda row: [row.create_time, row.id])
            sent = await deliveries.of(reading, [row.id for row in rows])
        return notification_pb2.ListNotificationsResponse(
            notifications=[wire.notification(row, sent[row.id]) for row in rows], next_page_token=token
        )

    async def GetNotification(
        self, request: notification_pb2.GetNotificationRequest, _context: Any
    ) -> notification_pb2.GetNotificationResponse:
        """One message. Raises NotFound."""
        async with self.ctx.database.reading() as reading:
            found = await _notification(reading, request.name)
        return notification_pb2.GetNotificationResponse(notification=found)

    async def AcknowledgeNotification(
        self, request: notification_pb2.AcknowledgeNotificationRequest, context: Any
    ) -> notification_pb2.AcknowledgeNotificationResponse:
        """Somebody has seen it: nobody else is told or asked. Saying so twice changes nothing. Raises NotFound."""
        actor, reason = access.caller(context), _reason(request.reason, needed=False)
        id_ = wire.notification_id(request.name)

        async def work(tx: Transaction) -> notification_pb2.AcknowledgeNotificationResponse:
            found = await notifications.get(tx, id_, lock=True)
            if found and found.state is not State.ACKNOWLEDGED:
                await notifications.save(tx, wire.acknowledge(found, actor, reason, tx.now))
                await deliveries.suppress(tx, found.id, f"{actor} has seen it")
                tx.record(wire.acknowledged(found, actor, reason))
            shown = await _notification(tx, request.name)
            return notification_pb2.AcknowledgeNotificationResponse(notification=shown)

        return await self.ctx.requests.once(request, notification_pb2.AcknowledgeNotificationResponse, work)


async def _notification(tx: Transaction, name: str) -> notification_pb2.Notification:
    id_ = wire.notification_id(name)
    found = await notifications.get(tx, id_)
    if found is None:
        raise NotFound(f"there is no notification {id_}", reason="NOTIFICATION_NOT_FOUND", field="name", name=id_)
    return wire.notification(found, (await deliveries.of(tx, [found.id]))[found.id])


def _reason(reason: str, *, needed: bool = True) -> str:
    text = reason.strip()
    if (needed and not text) or len(text) > LONGEST_REASON:
        least = "1" if needed else "0"
        raise Invalid(
            f"reason must say why, in {least} to {LONGEST_REASON} characters", reason="REASON_MISSING", field="reason"
        )
    return text
