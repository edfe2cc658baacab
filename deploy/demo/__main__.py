"""`python -m deploy.demo [scenario …]`: plays the scenarios on a fresh plane and prints the JSON document."""

import asyncio
import json
import sys

from deploy.demo import start

if __name__ == "__main__":
    status, document = asyncio.run(start.play(sys.argv[1:]))
    print(json.dumps(document, indent=2, ensure_ascii=False))
    sys.exit(status)
