"""`python -m services.patcher`: the patcher as a process of its own."""

import sys

from libs.common.runtime import main
from services.patcher.context import Settings
from services.patcher.service import build

if __name__ == "__main__":
    sys.exit(main(build, Settings))
