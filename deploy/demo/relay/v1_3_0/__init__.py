"""Relay 1.3.0: keeps the connection to the sink open and uses it again."""

VERSION = "1.3.0"
