"""Measures and prints one JSON document, each figure with its target beside it.

`python -m tests.bench [beats] [healing] [connections] [rollouts] [queue] [overview] [audit]`; without names,
everything. Ratios are taken in one run on one machine; absolute times are orientation only.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys

from tests.bench import audit, beats, connections, healing, overview, queue, rollouts

MEASUREMENTS = {
    "beats": beats.measure,
    "healing": healing.measure,
    "connections": connections.measure,
    "rollouts": rollouts.measure,
    "queue": queue.measure,
    "overview": overview.measure,
    "audit": audit.measure,
}


async def main(names: list[str]) -> int:
    """Runs the named measurements; 2 for an unknown name."""
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        print(f"bench: unknown {', '.join(unknown)}; choose from {', '.join(MEASUREMENTS)}", file=sys.stderr)
        return 2
    document: dict[str, object] = {"machine": {"cores": os.cpu_count(), "python": platform.python_version()}}
    for name in names or list(MEASUREMENTS):
        print(f"bench: {name} …", file=sys.stderr)
        document[name] = await MEASUREMENTS[name]()
    print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
