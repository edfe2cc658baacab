"""Relay 1.1.0: signs and forwards every webhook as it came."""

VERSION = "1.1.0"
