"""Relay 1.2.2: tells the sink the id of an event in a header."""

VERSION = "1.2.2"
