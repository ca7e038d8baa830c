"""Stands in for sagemaker-training: what scripts import of it. Starting them is Mooring's own business."""
