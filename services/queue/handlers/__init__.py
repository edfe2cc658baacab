"""Door 1, somebody asked: `QueueService`, one file for each kind of thing."""
