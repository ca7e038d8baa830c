"""Mooring: train PyTorch models and serve thousands of them from one container.

Importing this package does nothing; the rooms behind it are `mooring.training` and `mooring.serving`.
"""

__version__ = "0.1.0.dev0"
