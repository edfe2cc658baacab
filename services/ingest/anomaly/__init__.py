"""telemetry_anomaly: what is usual for a plugin, how far it is from that, and when that is computed."""
