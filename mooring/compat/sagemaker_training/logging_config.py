"""The toolkit's logger."""

import logging

DEFAULT_FORMAT = "%(asctime)s %(name)-12s %(levelname)-8s %(message)s"


def get_logger() -> logging.Logger:
    """Return the logger called "sagemaker-training-toolkit"."""
    return logging.getLogger("sagemaker-training-toolkit")


def configure_logger(level: int, log_format: str = DEFAULT_FORMAT) -> None:
    """Log to stderr from a level on; the AWS libraries say no more than that either."""
    logging.basicConfig(format=log_format, level=level)
    if level >= logging.INFO:
        for name in ("boto3", "s3transfer", "botocore"):
            logging.getLogger(name).setLevel(level)
