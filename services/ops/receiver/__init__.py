"""Where spans come in: OTLP over HTTP, beside the metrics and the health of this service."""
