"""Door 1, somebody asked: `IngestService`, one file per kind of thing."""
