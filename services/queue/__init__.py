"""queue: the resolution queue, durable work for workers and people."""
