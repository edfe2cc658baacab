"""`python -m services.ops`: ops as a process of its own."""

import sys

from libs.common.runtime import main
from services.ops.context import Settings
from services.ops.service import build

if __name__ == "__main__":
    sys.exit(main(build, Settings))
