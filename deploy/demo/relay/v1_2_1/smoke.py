"""The smoke tests that relay 1.2.1 ships with."""

# ruff: noqa: TID252 - a release is packed as a package of its own, next to `common`

from ..common.checks import PLAIN, run

if __name__ == "__main__":
    run(PLAIN)
