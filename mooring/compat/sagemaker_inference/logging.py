"""The toolkit's logger."""

import logging


def configure_logger() -> None:
    """Let the toolkit's logger write to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))
    get_logger().addHandler(handler)


def get_logger() -> logging.Logger:
    """Return the logger called "sagemaker-inference"."""
    return logging.getLogger("sagemaker-inference")
