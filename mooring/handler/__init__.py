"""Floor 2: a user's model code, or a default for a model that brings none, behind one protocol."""
