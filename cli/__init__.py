"""The command line: what people see and command, one file per command group."""
