"""Proxies that the environment names (`http_proxy` and its kin): for the outside world, never for this machine.

Rule: whoever speaks with a loopback address speaks with it directly, whatever the environment says. Other addresses go
the way the environment asks for, which `no_proxy` bounds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NAMES = frozenset({"http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "ftp_proxy"})


def is_loopback(address: str) -> bool:
    """Whether a host, or host:port, is this machine itself."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host, colon, port = address.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")) or not port.isdecimal():
        host = address
    host = host.strip("[]").lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def grpc_option(address: str) -> tuple[str, int]:
    """The channel option that says whether gRPC may use the environment's proxy for this address."""
    return "grpc.enable_http_proxy", int(not is_loopback(address))


def sparing_loopback(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for programs that may ask this machine by HTTP: where it names a proxy, not for loopback."""
    if not any(value and name.lower() in NAMES for name, value in environ.items()):
        return dict(environ)
    known = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    spared = [part for part in (one.strip() for one in known.split(",")) if part]
    text = ",".join(dict.fromkeys([*spared, *LOOPBACK]))
    return dict(environ) | {"no_proxy": text, "NO_PROXY": text}
