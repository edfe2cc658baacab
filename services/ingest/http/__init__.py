"""The HTTP side of ingest: for agents without gRPC, and for what looks after services."""
