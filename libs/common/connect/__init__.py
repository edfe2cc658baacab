"""The gRPC methods of a process over plain HTTP: the Connect protocol, and a document that describes it.

`POST /prunella.v1.OpsService/ListTimeline` with JSON does what the call over gRPC does, for curl, browsers and agents
without gRPC (https://connectrpc.com/docs/protocol). Nothing is decided here: a request becomes the call it stands for.
"""

from libs.common.connect.errors import problem_response, response
from libs.common.connect.handler import ConnectHandler
from libs.common.connect.methods import Method, methods

__all__ = ["ConnectHandler", "Method", "methods", "problem_response", "response"]
