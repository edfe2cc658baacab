"""Ports: the kernel says which are free, we remember them.

Rule: a plane that is started again is where it was, as long as nobody took its place; when somebody did, it moves and
says so. Only loopback is ever used.
"""

from __future__ import annotations

import contextlib
import functools
import random
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

HOST = "127.0.0.1"
LOWEST, TRIES = 10_000, 200
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Processes that look for ports at the same time would take each other's between the look and the use: whoever runs
# several gives each its share.
SHARE = slice(None)


def is_free(port: int) -> bool:
    """Whether this port of the loopback address can be listened on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the last run that still linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """So many different free ports, held together while they are collected so that none comes twice.

    They lie below those that the kernel gives to whoever connects, so that nobody gets one before it is listened on.
    """
    probes = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        return [_bound(probe) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _bound(probe: socket.socket) -> int:
    for _ in range(TRIES):
        with contextlib.suppress(OSError):
            probe.bind((HOST, random.choice(_all()[SHARE])))  # noqa: S311 - a place, not a secret
            return int(probe.getsockname()[1])
    probe.bind((HOST, 0))
    return int(probe.getsockname()[1])


@functools.cache
def _all() -> range:
    """The ports below those that the kernel gives to whoever connects."""
    try:
        return range(LOWEST, max(LOWEST + 1, int(RANGE.read_text().split()[0])))
    except (OSError, ValueError, IndexError):
        return range(LOWEST, 32768)


def assign(names: Iterable[str], remembered: Mapping[str, int], say: Callable[[str], None]) -> dict[str, int]:
    """A port for each name: the remembered one where it is free, else a new one, and says so."""
    names = list(names)
    fresh = dict(zip(names, free_ports(len(names)), strict=True))
    assigned = {}
    for name in names:
        before = remembered.get(name)
        if before and is_free(before):
            assigned[name] = before
        else:
            assigned[name] = fresh[name]
            if before:
                say(f"{name}: port {before} is taken by another program, moved to {fresh[name]}")
    return assigned
