"""TorchServe's base handlers."""
