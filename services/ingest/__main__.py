"""`python -m services.ingest`: ingest as a process of its own."""

import sys

from libs.common.runtime import main
from services.ingest.context import Settings
from services.ingest.service import build

if __name__ == "__main__":
    sys.exit(main(build, Settings))
