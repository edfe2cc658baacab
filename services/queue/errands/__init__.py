"""What the queue wants done outside: one thing, asking a model what a report is."""
