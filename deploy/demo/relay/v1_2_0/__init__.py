"""Relay 1.2.0: signs the canonical form of an event, so that its spacing should no longer matter."""

VERSION = "1.2.0"
