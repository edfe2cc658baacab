"""Relay 1.3.0: keeps connections to the sink open and uses them again."""

VERSION = "1.3.0"
