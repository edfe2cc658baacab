"""Whether a client may use the proxy that the environment names. See `prunella_agent.proxies`.

Rule: siblings and this machine are never asked through one; what an operator names of the outside world may be.
"""

from urllib.parse import urlsplit

from prunella_agent.proxies import is_loopback, sparing_loopback

__all__ = ["is_loopback", "may_be_proxied", "sparing_loopback"]


def may_be_proxied(url: str) -> bool:
    """Whether the environment's proxy may be used for an address of the outside world."""
    host = urlsplit(url).hostname or ""
    return bool(host) and not is_loopback(host)
