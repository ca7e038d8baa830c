"""Answers rows of numbers with prices. What is not defined here, reading and writing JSON and CSV, has a default."""

from pathlib import Path

import numpy as np


def model_fn(model_dir):
    """Return what predict_fn gets as `model`."""
    return np.load(Path(model_dir) / "weights.npy")


def predict_fn(data, model):
    """Return a price for each row."""
    return np.atleast_2d(data) @ model[:-1] + model[-1]
