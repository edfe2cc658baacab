"""Counts what happens in a plugin and tells the supervisor, over a local datagram socket.

Rule: the host never notices. Nothing here raises, blocks or grows: counters are plain numbers, samples sit in a ring,
the socket does not block, and without a supervisor (no PRUNELLA_SOCKET) everything is silent. Counters are cumulative
since the process began to count, so a lost or repeated datagram changes nothing. A forked child counts for itself.
Errors that say what they are go out beside the counters, grouped (`prunella_agent.error_groups`), a few at a time.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import socket
import threading
import time
from typing import Any

from prunella_agent.counters import Counters
from prunella_agent.error_groups import ErrorGroups

CHECK_SECONDS = 0.2
REPEAT_SECONDS = 1.0
MAX_NUMBERS = 32
MAX_NAME = 64
MAX_SAMPLE_BYTES = 2048
# A socket holds about ten datagrams until the supervisor reads them.
ERRORS_AT_ONCE = 32
FLUSH_TRIES = 50
FLUSH_PAUSE = 0.02
END_SECONDS = 1.0


class Sdk:
    """The counters of this process and the thread that sends them."""

    def __init__(self) -> None:
        # Reentrant, because a signal handler may count while its own thread is counting.
        self._lock = threading.RLock()
        self._counters = Counters()
        self._errors = ErrorGroups()
        self._path = ""
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._sent_version = -1

    def start(self, release: str) -> None:
        """Begins to send, when there is a supervisor; a second call only changes the release."""
        with self._lock:
            self._counters.release = str(release)[:MAX_NAME]
            self._counters.version += 1
            self._path = os.environ.get("PRUNELLA_SOCKET", "")
            if self._path and self._thread is None:
                thread = threading.Thread(target=self._loop, name="prunella-sdk", daemon=True)
                thread.start()  # a host without room for one more lets the next call try again
                self._thread = thread

    def count(self, **increments: int) -> None:
        """Adds to the named counters."""
        with self._lock:
            for name, step in increments.items():
                setattr(self._counters, name, getattr(self._counters, name) + step)
            self._counters.version += 1

    def sample(self, value: Any) -> None:
        """Keeps an input that failed; one that is too long to be replayed whole is not kept at all."""
        if isinstance(value, bytes):
            text = value.decode("utf-8", "strict")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
        if len(text.encode()) <= MAX_SAMPLE_BYTES:
            with self._lock:
                self._counters.samples.append(text)

    def number(self, name: str, value: float) -> None:
        """Sets a named number; the first 32 names are kept, what is not finite is not."""
        figure = float(value)
        name = str(name)[:MAX_NAME]
        with self._lock:
            known = name in self._counters.numbers or len(self._counters.numbers) < MAX_NUMBERS
            if known and math.isfinite(figure):
                self._counters.numbers[name] = figure
                self._counters.version += 1

    def send(self) -> None:
        """Sends the counters once; a socket that is full or gone loses this datagram, not the counts."""
        with self._lock:
            if not self._path:
                return
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            version = self._counters.version
            try:
                self._socket.sendto(self._counters.datagram(), self._path)
                self._sent_version = version
            except BlockingIOError:
                return  # it is full, and there: what comes next tells the same counts
            except OSError:
                self._socket.close()
                self._socket = None

    def error(self, error: object, type: str, message: str, stack: str, context: dict[str, Any]) -> None:  # noqa: A002
        """Counts one error, and keeps what is known about it until it is sent."""
        self.count(errors=1)
        if error is not None or message or type:
            # Described without the lock: no other thread waits while a stack is formatted.
            described = self._errors.describe(error, str(type), str(message), str(stack), context)
            with self._lock:
                self._errors.add(*described)

    def send_errors(self) -> bool:
        """Sends groups of errors; False when some still wait because the socket is full or gone."""
        with self._lock:
            for _ in range(ERRORS_AT_ONCE if self._path else 0):
                waiting = self._errors.datagram(self._counters.process)
                if waiting is None:
                    return True
                key, count, datagram = waiting
                if self._socket is None:
                    return False
                try:
                    self._socket.sendto(datagram, self._path)
                except OSError:
                    return False
                self._errors.sent(key, count)
        return not self._path

    def flush(self) -> None:
        """Sends everything; gives the supervisor up to a second to read what does not fit into the socket."""
        self.send()
        for _ in range(FLUSH_TRIES):
            if self._socket is not None and self._sent_version != self._counters.version:
                self.send()
            if self._socket is None or (self.send_errors() and self._sent_version == self._counters.version):
                return
            time.sleep(FLUSH_PAUSE)

    def end(self) -> None:
        """Sends everything and ends the thread: one that the interpreter has to end needs a descriptor to die."""
        quietly(self.flush)
        self._ending.set()
        if self._thread is not None:
            self._thread.join(END_SECONDS)

    def after_fork(self) -> None:
        """Makes a forked child count from zero under its own name."""
        release, running = self._counters.release, self._thread is not None
        self.__init__()  # type: ignore[misc]
        if running:
            self.start(release)

    def _loop(self) -> None:
        since = REPEAT_SECONDS
        while not self._ending.is_set():
            if since >= REPEAT_SECONDS or self._counters.version != self._sent_version:
                quietly(self.send)
                since = 0.0
            if self._errors:
                quietly(self.send_errors)
            self._ending.wait(CHECK_SECONDS)
            since += CHECK_SECONDS


def quietly(call: Any, *args: Any, **kwargs: Any) -> None:
    """Calls and swallows every failure: telemetry is never worth an outage."""
    try:
        call(*args, **kwargs)
    except Exception:  # noqa: BLE001, S110
        pass


_sdk = Sdk()
os.register_at_fork(after_in_child=lambda: quietly(_sdk.after_fork))
atexit.register(lambda: quietly(_sdk.end))


def start(release: str = "") -> None:
    """Begins to report, as this release. Call once, early."""
    quietly(_sdk.start, release)


def error(
    error: object = None,
    *,
    message: str = "",
    type: str = "",  # noqa: A002 - its name on the wire
    stack: str = "",
    **context: Any,
) -> None:
    """Counts one error of the plugin; with a message or an exception it is reported, to be healed by tools or people.

    `context` is what helps to understand it, as short texts; `severity` (low, medium, high, critical), `module`,
    `page_url`, `user_action` and `session` have places of their own. Nothing in it should be secret.
    """
    quietly(_sdk.error, error, type, message, stack, context)


def report(exception: BaseException, **context: Any) -> None:
    """Counts and reports one exception; its stack is taken from its traceback."""
    quietly(_sdk.error, exception, "", "", "", context)


def webhook(ok: bool, sample: Any = None) -> None:
    """Counts one webhook attempt; `sample` is the input that failed, kept so that a remedy can be tried on it."""
    quietly(_sdk.count, attempts=1, failures=0 if ok else 1)
    if not ok and sample is not None:
        quietly(_sdk.sample, sample)


def signature_failure() -> None:
    """Counts one signature that a peer rejected."""
    quietly(_sdk.count, signature_failures=1)


def number(name: str, value: float) -> None:
    """Sets one of up to 32 named numbers, such as a queue length."""
    quietly(_sdk.number, name, value)


def flush() -> None:
    """Sends now; for programs that end without running exit handlers."""
    quietly(_sdk.flush)
