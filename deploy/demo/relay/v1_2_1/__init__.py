"""Relay 1.2.1: tells the sink the type of an event in a header."""

VERSION = "1.2.1"
