"""The only place of queue that sees both protobuf and rows: parses or raises, one file for each kind of thing."""
