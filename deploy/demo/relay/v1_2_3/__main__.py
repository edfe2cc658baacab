"""Starts relay 1.2.3."""

# ruff: noqa: TID252 - a release is packed as a package of its own, next to `common`

from ..common.delivery import Delivery
from ..common.server import run
from . import VERSION
from .signing import sign

if __name__ == "__main__":
    run(VERSION, sign, Delivery())
