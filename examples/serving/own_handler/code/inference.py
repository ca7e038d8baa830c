"""A handler of your own: a table of numbers in, the most similar known rows out.

    serve --model examples/serving/own_handler
    curl -H 'content-type: text/csv' --data-binary '5.0,3.4,1.5,0.2' localhost:8080/invocations

The functions are those of SageMaker's toolkits; `context` is this request's. What is not defined has a default.
"""

import csv
import json
from pathlib import Path

import numpy as np

CONTENT_TYPES = ("application/json", "text/csv")


def model_fn(model_dir):
    """Return what the other functions get as `model`: here the rows of known.csv, with their names."""
    with (Path(model_dir) / "known.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return [row[-1] for row in rows], np.array([row[:-1] for row in rows], dtype=float)


def input_fn(request_body, content_type):
    """Return rows of numbers. JSON and CSV arrive as text, anything else as bytes."""
    if content_type.startswith("text/csv"):
        return np.array([line.split(",") for line in request_body.splitlines() if line], dtype=float)
    return np.array(json.loads(request_body), dtype=float)


def predict_fn(data, model):
    """Return the name of the nearest known row for each row."""
    names, known = model
    distances = np.linalg.norm(known[None] - np.atleast_2d(data)[:, None], axis=2)
    return [names[index] for index in distances.argmin(axis=1)]


def output_fn(prediction, accept, context):
    """Return the answer, and say in a header how many rows there were."""
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", f"rows={len(prediction)}")
    if accept == "text/csv":
        return "".join(f"{name}\n" for name in prediction), "text/csv"
    return json.dumps(prediction), "application/json"
