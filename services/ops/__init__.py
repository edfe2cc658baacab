"""ops: what people see and command."""
