"""Stands in for multi-model-server's Python side: what handlers import of it."""
