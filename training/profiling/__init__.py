"""Profiles of a run: what its steps wait for, and what the machine does meanwhile."""
