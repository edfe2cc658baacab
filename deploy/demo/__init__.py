"""The demo: a real plugin package with several releases, its surroundings, and scenarios played with it."""

import os

# gRPC reads it when it is imported: its remarks about connections that come and go have no place in the story.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
