"""Where a network's weights begin: at random, at an earlier job's, or at published ones with another last layer."""

import logging
from collections.abc import Mapping

import torch

from mooring.contract.channels import Channel
from mooring.contract.errors import HyperparameterError
from mooring.training.initial_weights import MODEL_CHANNEL, initial_weights, named_from, start_from

from .residual_network import ResidualNetwork
from .settings import Settings

logger = logging.getLogger(__name__)

Weights = dict[str, torch.Tensor]

FIRST_TENSOR = "conv1.weight"
LAST_LAYER = ("fc.weight", "fc.bias")


def given_weights(settings: Settings, channels: Mapping[str, Channel]) -> Weights | None:
    """Return the weights to begin with, None for random ones.

    Raises `InitialWeightsError`, `HyperparameterError` if weights are asked for and there is no channel with them.
    """
    weights = initial_weights(channels)
    if weights is None and settings.use_pretrained_model:
        raise HyperparameterError(
            [
                f"Hyperparameter 'use_pretrained_model' is 1, but the job has no channel '{MODEL_CHANNEL}', and a job "
                "fetches no weights by itself. Give it a channel with model.safetensors or model.tar.gz of an earlier "
                "job, or with torchvision's weights of a ResNet of num_layers layers."
            ]
        )
    return None if weights is None else named_from(weights, FIRST_TENSOR)


def begin_with(network: ResidualNetwork, weights: Weights, *, is_pretrained: bool) -> None:
    """Put weights into a network. Of pretrained ones for other classes, the last layer is left out.

    Raises `InitialWeightsError` if they are another network's.
    """
    own = network.state_dict()
    is_other = any(name in weights and weights[name].shape != own[name].shape for name in LAST_LAYER)
    if is_pretrained and (is_other or not all(name in weights for name in LAST_LAYER)):
        logger.info("the weights are for other classes than num_classes: the last layer begins at random")
        start_from(network, weights, fresh=LAST_LAYER)
    else:
        start_from(network, weights)
