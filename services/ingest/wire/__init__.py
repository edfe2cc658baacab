"""The only room of ingest that sees both protobuf and dataclass; it parses, or raises Invalid naming the field."""
