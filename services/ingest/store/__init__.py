"""Every SQL statement of ingest; rows and dataclasses. Locks are taken in the order plugin, pulse, incident, command."""
