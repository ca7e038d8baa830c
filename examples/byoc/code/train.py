"""Fits prices to rows of numbers. Written for the earlier toolkits: nothing in it knows of Mooring.

The channel `train` holds CSV files with the price in the last column.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np

HANDLER = Path(__file__).with_name("inference.py")


def main():
    """Fit, say how well, and leave a model with the handler that serves it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ridge", type=float, default=0.0, help="how much large weights are held against a fit")
    settings = parser.parse_args()
    rows = read_rows(Path(os.environ["SM_CHANNEL_TRAIN"]))
    features, prices = np.column_stack([rows[:, :-1], np.ones(len(rows))]), rows[:, -1]
    penalty = settings.ridge * np.eye(features.shape[1])
    weights = np.linalg.solve(features.T @ features + penalty, features.T @ prices)
    print(f"train:rmse={np.sqrt(np.mean((features @ weights - prices) ** 2)):.4f};")
    leave_model(weights, Path(os.environ["SM_MODEL_DIR"]))


def read_rows(folder):
    """Return the rows of all CSV files."""
    return np.concatenate([np.loadtxt(file, delimiter=",", ndmin=2) for file in sorted(folder.glob("*.csv"))])


def leave_model(weights, folder):
    """Write the weights, and the handler to where it is looked for."""
    np.save(folder / "weights.npy", weights)
    (folder / "code").mkdir(exist_ok=True)
    shutil.copy(HANDLER, folder / "code")


if __name__ == "__main__":
    main()
