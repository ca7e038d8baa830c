"""What handlers import of TorchServe's helpers."""
