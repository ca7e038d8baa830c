"""Floor 1: containers and processes, run the way the platform runs them. Standard library only."""
