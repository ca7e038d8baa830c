"""Metrics that handlers make by themselves."""
