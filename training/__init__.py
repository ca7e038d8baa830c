"""Training: the launcher, the process group, data positions and checkpoints."""
