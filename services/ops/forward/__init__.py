"""What people ask and tell the other services, under the services' own names, passed on unchanged.

Rule: only methods that the access table gives a role, only for people, byte for byte; who asks, how long they wait and
the trace go along. What a service answers, and what it refuses, comes back as it said it. A service that is away is
named.
"""

from services.ops.forward.forwarder import Forwarder, Passed, passed, services

__all__ = ["Forwarder", "Passed", "passed", "services"]
