"""Relay 1.2.4: forwards an event in the canonical form that was signed."""

VERSION = "1.2.4"
