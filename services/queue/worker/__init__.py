"""The worker of the resolution queue: claims tasks over gRPC and works them off with MCP tools.

Rule: it is a client like any other. It knows the protos and nothing else of the queue: no table, no heart. What it is
told about an error is data; only a strategy says which tools are called, and only validated names fill their arguments.
"""
