"""Bring your own script: what a training job of yours looks like with Mooring."""
