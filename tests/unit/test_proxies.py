"""Proxies of the environment are for the outside world, never for this machine."""

from __future__ import annotations

import pytest

from libs.common.proxies import may_be_proxied
from prunella_agent.proxies import LOOPBACK, grpc_option, is_loopback, sparing_loopback

HERE = [
    "127.0.0.1", "127.0.0.1:7001", "127.9.9.9:80", "localhost", "LOCALHOST.:80", "a.localhost:1", "::1", "[::1]:7001",
    "unix:/run/x", "unix-abstract:x",
]  # fmt: skip
ELSEWHERE = [
    "10.0.0.1:80",
    "plane.example.com:7001",
    "[2001:db8::1]:80",
    "2001:db8::1",
    "localhost.example.com",
    "",
    "0.0.0.0:1",
]


@pytest.mark.parametrize("address", HERE)
def test_this_machine_is_never_asked_through_one(address: str) -> None:
    assert is_loopback(address)
    assert grpc_option(address) == ("grpc.enable_http_proxy", 0)


@pytest.mark.parametrize("address", ELSEWHERE)
def test_everything_else_goes_the_way_the_environment_asks_for(address: str) -> None:
    assert not is_loopback(address)
    assert grpc_option(address) == ("grpc.enable_http_proxy", 1)


@pytest.mark.parametrize(
    ("url", "proxied"),
    [
        ("https://sira.example/ask", True),
        ("http://127.0.0.1:9/x", False),
        ("http://[::1]/", False),
        ("nonsense", False),
    ],
)
def test_only_an_address_of_the_outside_world_may_be_proxied(url: str, proxied: bool) -> None:
    assert may_be_proxied(url) is proxied


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy", "grpc_proxy"])
def test_programs_are_told_to_spare_this_machine(name: str) -> None:
    told = sparing_loopback({name: "http://proxy:3128", "no_proxy": "db.internal, localhost"})
    assert told["no_proxy"].split(",") == ["db.internal", "localhost", "127.0.0.1", "::1"]
    assert told["NO_PROXY"] == told["no_proxy"]
    assert told[name] == "http://proxy:3128"
    assert sparing_loopback({name: "x"})["no_proxy"].split(",") == list(LOOPBACK)
    assert sparing_loopback({name: "x", "NO_PROXY": "a"})["no_proxy"].startswith("a,")


def test_an_environment_without_one_stays_as_it_is() -> None:
    for environ in ({}, {"PATH": "/bin"}, {"http_proxy": ""}):
        assert sparing_loopback(environ) == environ
