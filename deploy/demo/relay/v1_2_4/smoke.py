"""The smoke tests that relay 1.2.4 ships with."""

# ruff: noqa: TID252 - a release is packed as a package of its own, next to `common`

from ..common.checks import PLAIN, RICH, run

if __name__ == "__main__":
    run({**PLAIN, **RICH})
