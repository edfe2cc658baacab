"""`python -m deploy.observability.targets > targets.json`: where Prometheus finds the plane of this checkout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from deploy.local.installation import HERE, START
from deploy.local.state import locate


def targets(http: Mapping[str, str]) -> list[dict[str, Any]]:
    """File-based discovery: one target for each service, named by it."""
    return [{"targets": [address], "labels": {"process": service}} for service, address in sorted(http.items())]


def main() -> int:
    """Prints the targets; 3 when no plane runs."""
    http = locate(os.environ).plane().get("http", {})
    if not http:
        print(f"no plane is running for {HERE}; start one with: {START}", file=sys.stderr)
        return 3
    print(json.dumps(targets(http), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
