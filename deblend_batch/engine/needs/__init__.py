"""What a run will need of its machines: actors, memory, time."""
