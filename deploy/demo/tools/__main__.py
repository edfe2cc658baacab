"""`python -m deploy.demo.tools --fleet FOLDER`: the tools over standard input and output, until the input ends."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Serves; 2 when there is no such folder."""
    parser = argparse.ArgumentParser(prog="relay-tools", description="MCP tools for the relay plugins of one fleet.")
    parser.add_argument("--fleet", required=True, type=Path, help="folder with one folder for each plugin")
    folder = parser.parse_args().fleet.resolve()
    if not folder.is_dir():
        print(f"relay-tools: --fleet {folder} is not a folder; name the `demo` folder of the plane", file=sys.stderr)
        return 2
    # The SDK takes most of a second to import; a wrong argument is said before that.
    from deploy.demo.tools.server import make

    make(folder).run("stdio")
    return 0


if __name__ == "__main__":
    sys.exit(main())
