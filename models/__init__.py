"""The networks: what there is, and load().

import models
net = models.load("googlenet")
acts = net.activations(images, ["inception4c", "fc"])   # (N, H, W, 3) float32 RGB 0..255 -> {name: mx.array}
"""

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path

from . import blas
from .cli import UserError, closest, note

__version__ = "0.1.0"
WEIGHTS = Path(__file__).parent / "weights"
STARTER = WEIGHTS / "googlenet_starter_mlx.npz"
STARTER_NOTE = (
    "note: this is the small starter network; `python convert.py --download googlenet` brings the ImageNet classic"
)


@dataclass(frozen=True)
class Statistics:
    """How a network wants its pixels: (x - mean) / std, x being 0..255 RGB; then the channels in `order`."""

    mean: tuple  # R, G, B
    std: tuple
    order: str = "RGB"


IMAGENET = Statistics((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
SYMMETRIC = Statistics((127.5,) * 3, (127.5,) * 3)  # 2x - 1: what torchvision's transform_input comes to
CAFFE = Statistics((123.0, 117.0, 104.0), (1.0,) * 3, "BGR")
PLACES = Statistics((116.676, 112.514, 104.051), (1.0,) * 3, "BGR")


@dataclass(frozen=True)
class Entry:
    """A network that can be asked for by name."""

    title: str
    module: str  # the file in models/
    constructor: str  # the class in it; called with num_classes (0: no classifier) and, where `aux` is true, aux
    layer: str  # dreamed on unless another is asked for
    statistics: Statistics  # of the published weights; a weights file carries its own
    num_classes: int = 1000
    aux: bool = False  # whether the architecture has auxiliary classifiers

    def build(self, num_classes, aux=False):
        blas.load()  # before the architecture imports mlx.core
        constructor = getattr(importlib.import_module(f".{self.module}", __name__), self.constructor)
        return constructor(num_classes, aux=aux) if self.aux else constructor(num_classes)


REGISTRY = {
    "googlenet": Entry("GoogLeNet (torchvision)", "googlenet", "GoogLeNet", "inception4c", SYMMETRIC, aux=True),
    "googlenet_bvlc": Entry("GoogLeNet (Caffe, 2015)", "googlenet_bvlc", "BVLC", "inception4c", CAFFE, aux=True),
    "googlenet_places365": Entry("GoogLeNet Places365", "googlenet_bvlc", "BVLC", "inception4c", PLACES, 365, aux=True),
    "inception_v3": Entry("Inception v3", "inception_v3", "InceptionV3", "Mixed_6c", SYMMETRIC, aux=True),
    "vgg16": Entry("VGG-16", "vgg", "VGG16", "relu4_3", IMAGENET),
    "vgg19": Entry("VGG-19", "vgg", "VGG19", "relu4_4", IMAGENET),
    "resnet50": Entry("ResNet-50", "resnet", "ResNet50", "layer3", IMAGENET),
    "alexnet": Entry("AlexNet", "alexnet", "AlexNet", "relu5", IMAGENET),
}


def entry(name):
    """The registry's entry for `name`; UserError with the closest names if there is none."""
    if name not in REGISTRY:
        raise UserError(f"there is no network {name!r}: {closest(name, REGISTRY)}")
    return REGISTRY[name]


def find(name):
    """The weights file of the network `name`: models/weights/<name>_mlx.npz, or for googlenet the bundled starter."""
    entry(name)
    path = WEIGHTS / f"{name}_mlx.npz"
    if path.exists():
        return path
    if name == "googlenet" and STARTER.exists():
        return STARTER
    raise UserError(f"no weights for {name} here: get them with `python convert.py --download {name}`, or name a file")


def installed(name):
    """Whether find() would find weights of the network `name`."""
    try:
        return find(name).exists()
    except UserError:
        return False


@functools.cache
def advise(path):
    """Say on stderr, once, what would make dreams by the weights at `path` faster or better."""
    if blas.missing():
        note(blas.NOTE)
    if path == STARTER:
        note(STARTER_NOTE)


def load(name=None, weights=None):
    """A network with its weights, in eval mode.

    name: a name of the registry; None takes the one that the weights file names (googlenet without a file).
    weights: a file that convert.py or train_dream.py wrote, or a published one; None looks for it (see find()).
    Raises UserError where there are no weights, or they do not fit the network.
    """
    from . import weights as files

    if name is not None:
        entry(name)
    path = Path(weights) if weights else find(name or "googlenet")
    arrays, metadata = files.read(path)
    model = name or metadata["model"]
    if metadata["model"] != model:
        raise UserError(f"{path}: these are weights of {metadata['model']}, not of {model}")
    net = entry(model).build(metadata["num_classes"], aux=metadata["aux"])
    net.fill(arrays, path)
    net.metadata = metadata
    net.path = path
    return net.eval()
