"""Relay 1.2.3: signs the bytes that are sent, as 1.1.0 did."""

VERSION = "1.2.3"
