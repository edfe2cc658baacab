"""`python -m services.ingest`: ingest as a process of its own."""

import sys

from libs.common.runtime import main
from services.ingest.service import build, load

if __name__ == "__main__":
    sys.exit(main(build, load))
