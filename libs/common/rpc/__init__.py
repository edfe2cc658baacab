"""Questions between services: servers and channels that keep the same promises everywhere.

A server checks access, maps problems to rich statuses, tells its health truthfully and drains before it stops. A
channel proves who calls, gives every call a deadline, tries again what may be tried again, and raises the same problems
that the other side raised.
"""

from libs.common.rpc.client import DEADLINE, channel
from libs.common.rpc.in_process import InProcess, StatusError
from libs.common.rpc.server import Server, Servicer
from libs.common.rpc.status import problem_of, status_of

__all__ = ["DEADLINE", "InProcess", "Server", "Servicer", "StatusError", "channel", "problem_of", "status_of"]
