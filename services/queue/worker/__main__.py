"""`python -m services.queue.worker --config worker.toml [--once]`: a worker as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from libs.common.errors import Invalid, Problem
from libs.common.settings import load
from services.queue.worker.config import Config, parse
from services.queue.worker.settings import WorkerSettings

CANNOT_START = 1
BAD_CONFIG = 2


def read(path: Path) -> Config:
    """The configuration in a file. Raises Invalid."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"--config {path} cannot be read: {error}", reason="BAD_WORKER_CONFIG", field="--config"
        ) from None
    return parse(text, path.name)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a worker until a signal; 0 after a clean stop, 1 when it could not start, 2 when it was told wrong."""
    parser = argparse.ArgumentParser(
        prog="prunella-worker", description="Works off the resolution queue with the tools of MCP servers."
    )
    parser.add_argument("--config", required=True, type=Path, help="servers and tools (TOML); see docs/queue.md")
    parser.add_argument("--once", action="store_true", help="work off what is due now, then end")
    parser.add_argument("--check", action="store_true", help="only say whether the configuration is right")
    options = parser.parse_args(argv)
    try:
        config = read(options.config)
        if options.check:
            return 0
        settings = load(WorkerSettings)
    except Invalid as problem:
        print(problem.message, file=sys.stderr)
        return BAD_CONFIG
    try:
        # The MCP SDK takes most of a second to import; a wrong configuration is said before that.
        from services.queue.worker.process import run_worker

        asyncio.run(run_worker(config, settings, once=options.once))
    except ImportError as error:
        print(f"the worker needs the package {error.name}: pip install 'prunella[mcp]'", file=sys.stderr)
        return CANNOT_START
    except Problem as problem:
        print(problem.message, file=sys.stderr)
        return CANNOT_START
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
