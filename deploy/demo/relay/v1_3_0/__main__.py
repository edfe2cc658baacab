"""Starts relay 1.3.0."""

# ruff: noqa: TID252 - a release is packed as a package of its own, next to `common`

from ..common.server import run
from . import VERSION
from .delivery import Delivery
from .signing import sign

if __name__ == "__main__":
    run(VERSION, sign, Delivery())
