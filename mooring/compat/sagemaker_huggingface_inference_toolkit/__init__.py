"""Stands in for sagemaker-huggingface-inference-toolkit: its media types, codecs and service class."""
