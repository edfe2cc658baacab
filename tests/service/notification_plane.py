"""ops alone, with a webhook's receiver and a mail server: what tests of notifications stand on."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration

from deploy.local.testing import Plane, until
from libs.common.bus import Bus, fact
from libs.common.clock import SystemClock
from libs.common.database import Database
from libs.common.names import new_id
from prunella.v1 import events_pb2 as facts
from prunella.v1 import notification_pb2 as pb
from prunella.v1.ops_pb2_grpc import OpsServiceStub
from tests.service.notification_sinks import MailServer, Post, WebhookSink

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
TABLES = ("deliveries", "notifications", "notification_dedup_keys", "notification_throttles", "errands")
WAIT = 40.0


def escalated(plugin: str = "", severity: Any = facts.SEVERITY_HIGH, **about: Any) -> facts.Event:
    """A person is asked about an incident."""
    about = {"plugin": plugin or new_id(), "incident": new_id(), "merchant": "m1"} | about
    told = facts.IncidentEscalated(type="webhook_fail_rate", severity=severity, round=3)
    return fact("ingest", told, reason="three rounds did not heal it", **about)


def settings(hook: str, mail: int, *, steps: list[list[str]] | None = None, **changed: Any) -> pb.NotificationSettings:
    """A webhook and a mailbox, told together unless `steps` says otherwise; windows as short as they may be."""
    made = pb.NotificationSettings(batch_window=Duration(seconds=1), **changed)
    made.channels.add(id="hook", webhook=pb.WebhookChannel(url=hook, secret=SECRET))
    box = pb.EmailChannel(
        host="127.0.0.1", port=mail, security="none", sender="p@example.com", recipients=["a@b.example"]
    )
    made.channels.add(id="mail", email=box)
    route = made.routes.add(id="ops")
    for step in steps or [["hook", "mail"]]:
        route.steps.add(channels=step, acknowledge_within=Duration(seconds=600))
    return made


@dataclass
class NotificationPlane:
    """The plane, who tells it facts, and where messages arrive."""

    plane: Plane
    hook: WebhookSink = field(default_factory=WebhookSink)
    mail: MailServer = field(default_factory=MailServer)

    def __post_init__(self) -> None:
        clock = SystemClock()
        self.database = Database(self.plane.backing.url("ingest"), clock=clock, pool_size=4)
        self.bus = Bus(self.plane.backing.nats_url, self.database, "ingest", clock)

    async def start(self) -> NotificationPlane:
        await self.hook.start()
        await self.mail.start()
        await self.bus.start()
        return self

    async def stop(self) -> None:
        await self.bus.stop()
        await self.database.close()
        await self.hook.stop()
        await self.mail.stop()

    @property
    def ops(self) -> Any:
        return OpsServiceStub(self.plane.channel("ops"))

    @property
    def ctx(self) -> Any:
        return self.plane.services["ops"].ctx

    async def tell(self, *events: facts.Event) -> None:
        async def work(tx: Any) -> None:
            for event in events:
                tx.record(event)

        await self.database.transaction(work)

    async def set(self, given: pb.NotificationSettings | None = None, **changed: Any) -> pb.NotificationSettings:
        document = given or settings(self.hook.url, self.mail.port, **changed)
        request = pb.UpdateNotificationSettingsRequest(settings=document, reason="a test", request_id=new_id())
        answer = await self.ops.UpdateNotificationSettings(request, timeout=10)
        made: pb.NotificationSettings = answer.settings
        return made

    async def listed(self, **filters: Any) -> list[pb.Notification]:
        return list(
            (await self.ops.ListNotifications(pb.ListNotificationsRequest(**filters), timeout=10)).notifications
        )

    async def until(
        self, good: Callable[[list[pb.Notification]], Any], what: str, **filters: Any
    ) -> list[pb.Notification]:
        """The notifications, once they are as wanted."""

        async def look() -> list[pb.Notification] | None:
            found = await self.listed(**filters)
            return found if good(found) else None

        found: list[pb.Notification] = await until(look, WAIT, what=what)
        return found

    async def one(self, state: str) -> pb.Notification:
        """The only notification, once it is in a state."""
        (found,) = await self.until(lambda all_: len(all_) == 1 and all_[0].state == state, f"one {state}")
        return found

    async def posts(self, count: int) -> list[Post]:
        """What the webhook got, once it got as many."""
        await until(lambda: len(self.hook.posts) >= count, WAIT, what=f"{count} posts")
        return self.hook.posts

    async def change(self, statement: str) -> None:
        """Moves a row, so that a test need not wait for the clock."""
        await self.ctx.database.transaction(lambda tx: tx.run(statement))

    async def forget(self) -> None:
        """Everything is as after the migration, and nothing is on its way any more; what was told stays told."""
        for table in TABLES:
            await self.change(f"DELETE FROM ops.{table}")  # noqa: S608 - the names are ours
        await self.change("UPDATE ops.notification_settings SET version = 0, document = '{}'")
        self.hook.let_go()
        states = self.ctx.sender._states
        await until(lambda: not any(state.in_flight for state in states.values()), WAIT, what="nothing is on its way")
        self.hook.answer, self.hook.headers = (lambda _post: (200, "ok")), ""
        self.hook.posts.clear()
        self.mail.mails.clear()
        self.mail.replies.clear()
        self.mail.hangs = False
