"""Where messages to people arrive in tests: a webhook's receiver and a mail server, each a few lines of the protocol.

Rule: both take real connections, write down what they were given, and answer as the test tells them to.
"""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any


@dataclass(frozen=True)
class Post:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


async def hang(_post: Post) -> tuple[int, str]:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


@dataclass
class WebhookSink:
    """Answers (status, body) as `answer` says; a coroutine function may take its time."""

    answer: Callable[[Post], tuple[int, str] | Awaitable[tuple[int, str]]] = lambda _post: (200, "ok")
    headers: str = ""
    posts: list[Post] = field(default_factory=list)
    url: str = ""
    _server: asyncio.Server | None = None
    _open: set[asyncio.Task[Any]] = field(default_factory=set)

    async def start(self) -> WebhookSink:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"
        return self

    def let_go(self) -> None:
        """Hangs up on whoever still waits."""
        for task in list(self._open):
            task.cancel()

    async def stop(self) -> None:
        await _close(self._server, self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._open.add(task)
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            post = Post(lines[0].split()[1], headers, await reader.readexactly(int(headers["content-length"])))
            self.posts.append(post)
            answer = self.answer(post)
            status, said = await answer if not isinstance(answer, tuple) else answer
            head = f"HTTP/1.1 {status} X\r\n{self.headers}content-length: {len(said.encode())}\r\n"
            writer.write(f"{head}connection: close\r\n\r\n{said}".encode())
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side went, or the test is over
        finally:
            self._open.discard(task)
            writer.close()


@dataclass
class MailServer:
    """Speaks SMTP; `replies` overrides the answer to a verb, for example RCPT → 550 no such user."""

    replies: dict[str, str] = field(default_factory=dict)
    password: str = ""
    hangs: bool = False
    mails: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.Task[Any]] = field(default_factory=set)

    async def start(self) -> MailServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        await _close(self._server, self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._open.add(task)
        try:
            if self.hangs:
                await asyncio.Event().wait()
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side went, or the test is over
        finally:
            self._open.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recipients: list[str] = []

        async def say(text: str) -> None:
            writer.write(f"{text}\r\n".encode())
            await writer.drain()

        await say("220 test ESMTP")
        while line := (await reader.readline()).decode().strip():
            verb = line.split()[0].upper()
            if verb in self.replies and verb != "DATA":
                await say(self.replies[verb])
            elif verb == "EHLO":
                await say("250-test\r\n250 AUTH PLAIN" if self.password else "250 test")
            elif verb == "AUTH":
                given = base64.b64decode(line.split()[2]).decode().split("\0")[2]
                await say("235 welcome" if given == self.password else "535 5.7.8 wrong password " + given)
            elif verb == "RCPT":
                recipients.append(line.partition("<")[2].partition(">")[0])
                await say("250 ok")
            elif verb == "DATA":
                await say("354 go on")
                whole = await reader.readuntil(b"\r\n.\r\n")
                parsed = email.message_from_bytes(whole[:-5], policy=email.policy.default)
                assert isinstance(parsed, EmailMessage)
                if "DATA" not in self.replies:
                    self.mails.append((recipients, parsed))
                await say(self.replies.get("DATA", f"250 queued as {len(self.mails)}"))
            elif verb == "QUIT":
                await say("221 bye")
                return
            else:
                await say("250 ok")


async def _close(server: asyncio.Server | None, tasks: set[asyncio.Task[Any]]) -> None:
    if server:
        server.close()
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if server:
        await server.wait_closed()
