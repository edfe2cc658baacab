"""`python -m services.decider`: the decider as a process of its own."""

import sys

from libs.common.runtime import main
from services.decider.context import Settings
from services.decider.service import build

if __name__ == "__main__":
    sys.exit(main(build, Settings))
