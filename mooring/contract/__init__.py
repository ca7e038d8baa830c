"""Floor 0: what the platform writes, promises and expects, as values. Standard library only."""
