"""Adds up what the plugin's processes count, into figures that are cumulative since the supervisor's boot.

Rule: a figure never shrinks. Each process counts from zero under its own name; when it is exited its last figures stay
in the sum. What a datagram says is not trusted: anything but whole, non-negative, growing numbers is ignored, and the
number of processes, names and samples is bounded. Datagrams that carry an error are passed on as they are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunella.v1 import agent_pb2 as pb
from prunella_agent.error_counters import from_datagram

FIGURES = ("errors", "attempts", "failures", "signature_failures")
MAX_PROCESSES = 64
MAX_FIGURE = 2**53
MAX_NUMBERS = 32
MAX_SAMPLES = 3
MAX_SAMPLE_BYTES = 2048
MAX_DATAGRAM = 65536


@dataclass
class Totals:
    """The sums over all processes of the plugin since boot."""

    processes: dict[str, dict[str, int]] = field(default_factory=dict)
    exited: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FIGURES, 0))
    numbers: dict[str, float] = field(default_factory=dict)
    samples: tuple[str, ...] = ()

    def total(self, figure: str) -> int:
        """One figure since boot."""
        return self.exited[figure] + sum(counts[figure] for counts in self.processes.values())

    def add(self, datagram: bytes) -> bool:
        """Adds one datagram of counters; False when it is not one."""
        try:
            body = json.loads(datagram)
            process = str(body["process"])[:64]
            counts = {figure: parse_count(body[figure]) for figure in FIGURES}
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        known = self.processes.pop(process, None)
        if known is None and len(self.processes) >= MAX_PROCESSES:
            self._evict()
        floor = known or dict.fromkeys(FIGURES, 0)
        self.processes[process] = {figure: max(counts[figure], floor[figure]) for figure in FIGURES}
        self._add_samples(body)
        return True

    def _evict(self) -> None:
        # The process heard of longest ago; if it lived it would have spoken within the second.
        counts = self.processes.pop(next(iter(self.processes)))
        for figure in FIGURES:
            self.exited[figure] += counts[figure]

    def _add_samples(self, body: dict[str, Any]) -> None:
        numbers = body.get("numbers")
        for name, value in list(numbers.items())[:MAX_NUMBERS] if isinstance(numbers, dict) else ():
            room = name in self.numbers or len(self.numbers) < MAX_NUMBERS
            if room and len(name) <= 64 and isinstance(value, (int, float)) and math.isfinite(value):
                self.numbers[name] = float(value)
        samples = body.get("samples")
        if isinstance(samples, list) and samples:
            valid = [s for s in samples if isinstance(s, str) and len(s.encode("utf-8", "replace")) <= MAX_SAMPLE_BYTES]
            self.samples = tuple(valid[-MAX_SAMPLES:])


def parse_count(value: object) -> int:
    """A count. Raises ValueError for anything else."""
    if type(value) is not int or not 0 <= value <= MAX_FIGURE:
        raise ValueError(f"{value!r} is not a count")
    return value


class Telemetry:
    """The datagram socket that the SDK writes to, and the tally of what came."""

    def __init__(self, path: Path, on_error: Callable[[pb.ErrorReport], None] | None = None) -> None:
        self.totals = Totals()
        self._path = path
        self._on_error = on_error
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Opens the socket; one that an earlier run left is replaced. Raises OSError, and may then be tried again."""
        if self._socket is not None:
            return
        self._path.unlink(missing_ok=True)
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            fresh.setblocking(False)
            fresh.bind(str(self._path))
            self._path.chmod(0o600)
        except OSError:
            fresh.close()
            raise
        self._socket = fresh
        asyncio.get_running_loop().add_reader(fresh, self.drain)

    def drain(self) -> None:
        """Takes in what waits, at most 256 datagrams at a time."""
        for _ in range(256):
            try:
                datagram = self._socket.recv(MAX_DATAGRAM) if self._socket else b""
            except OSError:
                break  # nothing waits, or nothing can be read now: the figures come again
            if not datagram:
                break
            if not self.totals.add(datagram) and self._on_error:
                self._take_error(datagram, self._on_error)

    def _take_error(self, datagram: bytes, on_error: Callable[[pb.ErrorReport], None]) -> None:
        try:
            error = from_datagram(json.loads(datagram))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        on_error(error)

    def stop(self) -> None:
        """Closes the socket and removes its name."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
