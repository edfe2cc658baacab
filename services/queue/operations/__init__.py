"""What several doors of queue do in a transaction of theirs: one file for each operation."""
