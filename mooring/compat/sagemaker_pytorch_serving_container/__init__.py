"""Stands in for sagemaker-pytorch-inference: what handlers import of it."""
