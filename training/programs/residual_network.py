"""Residual networks in the two shapes of SageMaker's built-in image classification: for small images and for large.

He et al., "Deep Residual Learning for Image Recognition", 2015; depths and the border between the shapes are the
built-in's, where images of at most 28 pixels in height take the CIFAR form.
"""

import torch
from torch import nn

SMALL_HEIGHT = 28
SMALL_CHANNELS = (16, 32, 64)
LARGE_CHANNELS = (64, 128, 256, 512)
# Depth -> blocks per stage; from 50 on, blocks are bottlenecks.
LARGE_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BOTTLENECK_DEPTH = 50
BOTTLENECK_EXPANSION = 4


class Residual(nn.Module):
    """A block whose convolutions learn what to add to its input."""

    def __init__(self, convolutions: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.shortcut = shortcut

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return activations of the block's own number of channels."""
        return torch.relu(self.convolutions(images) + self.shortcut(images))


class ResidualNetwork(nn.Module):
    """Takes N x C x H x W float pixels from 0 to 255, returns N x classes logits."""

    def __init__(self, depth: int, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, _ = image_shape
        if height <= SMALL_HEIGHT:
            width: tuple[int, ...] = SMALL_CHANNELS
            stages: tuple[int, ...] = ((depth - 2) // 6,) * len(SMALL_CHANNELS)
            self.stem = _convolution(channels, width[0], 3)
        else:
            width, stages = LARGE_CHANNELS, LARGE_STAGES[depth]
            self.stem = nn.Sequential(
                *_convolution(channels, width[0], 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)
            )
        is_bottleneck = height > SMALL_HEIGHT and depth >= BOTTLENECK_DEPTH
        blocks: list[nn.Module] = []
        incoming = width[0]
        for stage, (outgoing, count) in enumerate(zip(width, stages, strict=True)):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                block = _bottleneck(incoming, outgoing, stride) if is_bottleneck else _plain(incoming, outgoing, stride)
                blocks.append(block)
                incoming = outgoing * (BOTTLENECK_EXPANSION if is_bottleneck else 1)
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(incoming, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        activations = self.blocks(torch.relu(self.stem(pixels / 127.5 - 1)))
        logits: torch.Tensor = self.classifier(activations.mean((2, 3)))
        return logits


class Classifier(nn.Module):
    """What is exported: the network with softmax at its end, so that answers are probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return N x classes probabilities."""
        return torch.softmax(self.network(pixels), 1)


def depths(height: int) -> str:
    """Say which depths there are for images of a height."""
    return "6n + 2, such as 20, 32, 44, 56 or 110" if height <= SMALL_HEIGHT else ", ".join(map(str, LARGE_STAGES))


def has_depth(depth: int, height: int) -> bool:
    """Whether there is a network of this depth for images of this height."""
    return depth >= 8 and (depth - 2) % 6 == 0 if height <= SMALL_HEIGHT else depth in LARGE_STAGES


def _convolution(incoming: int, outgoing: int, size: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(incoming, outgoing, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    return nn.Sequential(convolution, nn.BatchNorm2d(outgoing))


def _shortcut(incoming: int, outgoing: int, stride: int) -> nn.Module:
    is_same = incoming == outgoing and stride == 1
    return nn.Identity() if is_same else _convolution(incoming, outgoing, 1, stride)


def _plain(incoming: int, outgoing: int, stride: int) -> Residual:
    convolutions = nn.Sequential(
        *_convolution(incoming, outgoing, 3, stride), nn.ReLU(), *_convolution(outgoing, outgoing, 3)
    )
    return Residual(convolutions, _shortcut(incoming, outgoing, stride))


def _bottleneck(incoming: int, width: int, stride: int) -> Residual:
    outgoing = width * BOTTLENECK_EXPANSION
    convolutions = nn.Sequential(
        *_convolution(incoming, width, 1),
        nn.ReLU(),
        *_convolution(width, width, 3, stride),
        nn.ReLU(),
        *_convolution(width, outgoing, 1),
    )
    return Residual(convolutions, _shortcut(incoming, outgoing, stride))
