"""Stands in for TorchServe's Python side: its base handlers, and what handlers import beside them."""
