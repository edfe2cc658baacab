"""Is the relay well? Exit code 0 when GET /health on $PORT answers 200 within 3 s."""

from __future__ import annotations

import http.client
import os
import sys


def healthy(port: int) -> bool:
    """Whether the relay on this port answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if healthy(int(os.environ["PORT"])) else 1)
