"""Stands in for sagemaker-inference: what handlers import of it. Starting a server is Mooring's own business."""
