"""Every SQL statement of queue: one file for each kind of row, one for what a worker does with tasks."""
