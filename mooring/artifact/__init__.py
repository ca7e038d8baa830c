"""Floor 1: model artifacts and other bytes at rest. Standard library only."""
