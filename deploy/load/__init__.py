"""Load on a running plane: agents that only beat, and how long the plane takes to make their beats durable."""
