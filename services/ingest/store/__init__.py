"""Every SQL statement of ingest; rows and dataclasses.

Rule: locks are taken in the order plugin, pulse, incident, command, pair of a storm.
"""
