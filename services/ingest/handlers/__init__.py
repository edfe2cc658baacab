"""Door 1, a call came: `IngestService`, one file per resource."""
