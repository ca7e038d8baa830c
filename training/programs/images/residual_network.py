"""Residual networks in the two families of SageMaker's built-in image classification: for large images and for small.

He et al., "Deep Residual Learning for Image Recognition", 2015, in the form whose weights everybody publishes: the
stride lies in a bottleneck's middle convolution. Tensors have torchvision's names, so that its weights fit as they are.
docs/decisions/0009-residual-networks.md says why not the built-in's own form.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Depth -> blocks per stage; from 50 on, blocks are bottlenecks.
LARGE_STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
LARGE_CHANNELS = (64, 128, 256, 512)
# 6n + 2 layers: a stem, three stages of n blocks of two, the classifier.
SMALL_DEPTHS = (20, 32, 44, 56, 110)
SMALL_CHANNELS = (16, 32, 64)
# Up to this height an image is not made smaller before the first block.
SMALL_HEIGHT = 32
BOTTLENECK_DEPTH = 50
EXPANSION = 4
# Of ImageNet's images, whose weights are the ones people start from. Pixels from 0 to 255; RGB, or grey.
MEANS = {3: (123.675, 116.28, 103.53), 1: (114.495,)}
DEVIATIONS = {3: (58.395, 57.12, 57.375), 1: (57.63,)}


class PlainBlock(nn.Module):
    """Two convolutions that learn what to add to their input."""

    expansion = 1

    def __init__(self, incoming: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(incoming, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _convolution(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = _shortcut(incoming, width, stride)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return activations of the block's own number of channels."""
        learnt = torch.relu(self.bn1(self.conv1(images)))
        return torch.relu(self.bn2(self.conv2(learnt)) + self.downsample(images))


class Bottleneck(nn.Module):
    """Three convolutions, the middle one of fewer channels, that learn what to add to their input."""

    expansion = EXPANSION

    def __init__(self, incoming: int, width: int, stride: int) -> None:
        super().__init__()
        outgoing = width * EXPANSION
        self.conv1, self.bn1 = _convolution(incoming, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _convolution(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _convolution(width, outgoing, 1), nn.BatchNorm2d(outgoing)
        self.downsample = _shortcut(incoming, outgoing, stride)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return activations of the block's own number of channels."""
        learnt = torch.relu(self.bn1(self.conv1(images)))
        learnt = torch.relu(self.bn2(self.conv2(learnt)))
        return torch.relu(self.bn3(self.conv3(learnt)) + self.downsample(images))


class ResidualNetwork(nn.Module):
    """Takes N x C x H x W pixels from 0 to 255, floats or bytes, and returns N x classes logits."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, depth: int, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, _ = image_shape
        is_large = depth in LARGE_STAGES
        widths: Sequence[int] = LARGE_CHANNELS if is_large else SMALL_CHANNELS
        stages: Sequence[int] = LARGE_STAGES[depth] if is_large else [(depth - 2) // 6] * len(SMALL_CHANNELS)
        block = Bottleneck if is_large and depth >= BOTTLENECK_DEPTH else PlainBlock
        is_small_image = height <= SMALL_HEIGHT
        # Constants of the network, so that whoever serves it gives plain pixels.
        self.register_buffer("mean", torch.tensor(MEANS[channels]).view(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATIONS[channels]).view(-1, 1, 1), persistent=False)
        self.conv1 = _convolution(channels, widths[0], 3 if is_small_image else 7, 1 if is_small_image else 2)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.Identity() if is_small_image else nn.MaxPool2d(3, 2, padding=1)
        incoming = widths[0]
        self.stages = []
        for number, (width, count) in enumerate(zip(widths, stages, strict=True), start=1):
            blocks = []
            for index in range(count):
                blocks.append(block(incoming, width, stride=2 if number > 1 and index == 0 else 1))
                incoming = width * block.expansion
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            self.stages.append(f"layer{number}")
        self.fc = nn.Linear(incoming, classes)

    def folded(self) -> "ResidualNetwork":
        """Return a copy, to be measured with, whose convolutions do what normalised their results: half the steps."""
        network = copy.deepcopy(self).cpu().eval()
        for module in network.modules():
            for first, second in _normalised(module):
                convolution, norm = module.get_submodule(first), module.get_submodule(second)
                assert isinstance(convolution, nn.Conv2d)
                assert isinstance(norm, nn.BatchNorm2d)
                module.set_submodule(first, fuse_conv_bn_eval(convolution, norm))
                module.set_submodule(second, nn.Identity())
        return network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        activations = (pixels.float() - self.mean) / self.deviation
        activations = self.maxpool(torch.relu(self.bn1(self.conv1(activations))))
        for stage in self.stages:
            activations = self.get_submodule(stage)(activations)
        logits: torch.Tensor = self.fc(activations.mean((2, 3)))
        return logits


class Classifier(nn.Module):
    """What is exported: the network with softmax at its end, or sigmoid where an image may have several classes."""

    def __init__(self, network: nn.Module, *, is_multi_label: bool = False) -> None:
        super().__init__()
        self.network = network
        self.is_multi_label = is_multi_label

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return N x classes probabilities."""
        logits = self.network(pixels)
        return torch.sigmoid(logits) if self.is_multi_label else torch.softmax(logits, 1)


def _normalised(module: nn.Module) -> list[tuple[str, str]]:
    """Return the names of a module's convolutions, each with that of what normalises its results."""
    names = [name for name, _ in module.named_children()]
    if isinstance(module, nn.Sequential):  # a shortcut
        return [("0", "1")] if any(isinstance(part, nn.BatchNorm2d) for part in module) else []
    return [(name, name.replace("conv", "bn")) for name in names if name.startswith("conv")]


def _convolution(incoming: int, outgoing: int, size: int, stride: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(incoming, outgoing, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _shortcut(incoming: int, outgoing: int, stride: int) -> nn.Module:
    if incoming == outgoing and stride == 1:
        return nn.Identity()
    return nn.Sequential(_convolution(incoming, outgoing, 1, stride), nn.BatchNorm2d(outgoing))
