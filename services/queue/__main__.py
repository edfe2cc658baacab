"""`python -m services.queue`: queue as a process of its own."""

import sys

from libs.common.runtime import main
from services.queue.context import Settings
from services.queue.service import build

if __name__ == "__main__":
    sys.exit(main(build, Settings))
