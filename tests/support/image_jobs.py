"""Jobs of the program image-classification, whole ones as `train` runs them, and what their models answer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jobs import write_config
from pictures import write_listed
from training_jobs import Job

from mooring.contract.environment import TrainingEnvironment, process_variables
from mooring.contract.typed import parse_hyperparameters
from mooring.handler.load import load_handler
from mooring.handler.protocol import InferenceRequest
from mooring.handler.resolve import choose_handler
from mooring.handler.terms import LoadTerms
from mooring.training.distributed import process_group
from mooring.training.generators import seed_generators
from mooring.training.programs.image_classification import train
from mooring.training.programs.images.loaders import ImageLoaders
from mooring.training.programs.images.pretrained import Weights
from mooring.training.programs.images.residual_network import ResidualNetwork
from mooring.training.programs.images.settings import Settings
from mooring.training.sampler import DataPosition

SETTINGS = {"num_layers": 20, "image_shape": "1,8,8", "num_classes": 2, "mini_batch_size": 8, "epochs": 2}
LISTED = dict.fromkeys(("train", "validation", "train_lst", "validation_lst"), "application/x-image")
RECORDED = dict.fromkeys(("train", "validation"), "application/x-recordio")
COUNT = 16
PATIENCE_S = 550.0


def classification_job(
    base: Path, ranks: int = 1, channels: Mapping[str, str | None] = LISTED, **hyperparameters: Any
) -> Job:
    """A job that has images, if its channels list them."""
    job = Job.write(base, hyperparameters=SETTINGS | hyperparameters, channels=channels, ranks=ranks)
    job.variables |= {"MOORING_ALGORITHM": "image-classification", "OMP_NUM_THREADS": "1"}
    if "train_lst" in channels:
        for name in ("train", "validation"):
            write_listed(job.paths.input_data, name, COUNT)
    return job


def run_to_its_end(job: Job) -> tuple[int, str]:
    """Run a job that exports a model, which takes a minute where others use the cores; returns exit code and output."""
    run = job.start()
    with run.process:
        return run.process.wait(PATIENCE_S), run.output


def answers(model: Path, pictures: list[bytes]) -> list[list[float]]:
    """What our server's handler for a model folder answers to pictures."""
    handler = load_handler(choose_handler(model, {}), LoadTerms())
    requests = [InferenceRequest(body, "application/x-image", "application/json", {}) for body in pictures]
    found = []
    for answer in handler.respond(requests):
        assert not isinstance(answer, Exception), answer
        found.append(json.loads(bytes(answer.body)))
    return found


def train_here(base: Path, weights: Weights | None = None, **hyperparameters: Any) -> ResidualNetwork:
    """Train in this process, as the only rank, what SAGEMAKER_BASE_DIR and inputdataconfig.json describe."""
    write_config(base, "resourceconfig.json", {"current_host": "algo-1", "hosts": ["algo-1"]})
    write_config(base, "hyperparameters.json", {"algorithm": "image-classification"})
    settings = parse_hyperparameters(Settings, SETTINGS | hyperparameters)
    environment = TrainingEnvironment.load(process_variables())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would wait for each other where others use the cores
    try:
        with process_group() as group:
            position, size = DataPosition(), settings.mini_batch_size
            loaders = ImageLoaders(settings, environment.channels, group)
            images = loaders.training(size, position)
            held_out = loaders.held_out(images.class_names)
            seed_generators(settings.seed, group.rank)
            return train(settings, group, size, position, images, held_out, weights)
    finally:
        torch.set_num_threads(threads)
        if dist.is_initialized():  # a rank that fails ends without leaving
            dist.destroy_process_group()
