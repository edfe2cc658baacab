"""`python -m deploy.local`: the plane by itself, in the foreground, without a demo; `--fresh` forgets its data."""

import asyncio
import sys

from deploy.local import foreground

if __name__ == "__main__":
    sys.exit(asyncio.run(foreground.run(fresh="--fresh" in sys.argv[1:])))
