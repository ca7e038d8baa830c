"""Handlers for models that bring no code; each imports its heavy library only when chosen."""
