"""The networks that can be asked for by name: one row each."""

from dataclasses import dataclass

from dataset.cli import UserError, suggest

from .alexnet import AlexNet
from .googlenet import GoogLeNet
from .googlenet_bvlc import BVLC
from .inception_v3 import InceptionV3
from .resnet import ResNet50
from .vgg import VGG16, VGG19


@dataclass(frozen=True)
class Normalization:
    """How a network wants its pixels: (x - mean) / std, x being 0..255 RGB; then the channels in `order`."""

    mean: tuple  # R, G, B
    std: tuple
    order: str = "RGB"


IMAGENET = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
SYMMETRIC = Normalization((127.5,) * 3, (127.5,) * 3)  # 2x - 1: what torchvision's transform_input comes to
CAFFE = Normalization((123.0, 117.0, 104.0), (1.0,) * 3, "BGR")
PLACES = Normalization((116.676, 112.514, 104.051), (1.0,) * 3, "BGR")


@dataclass(frozen=True)
class NetworkSpec:
    """A network that can be asked for by name."""

    title: str
    constructor: type  # called with num_classes (0: no classifier) and, where `aux` is true, aux
    default_layer: str  # dreamed on unless another is asked for
    normalization: Normalization  # of the published weights; a weights file carries its own
    concept_layers: tuple  # that concepts are taken at, the last unless another is asked for (models/dreaming/)
    num_classes: int = 1000
    aux: bool = False  # whether the architecture has auxiliary classifiers

    def build(self, num_classes, aux=False):
        return self.constructor(num_classes, aux=aux) if self.aux else self.constructor(num_classes)


INCEPTION = ("inception4c", "inception4d", "inception4e", "inception5a", "inception5b")

REGISTRY = {
    "googlenet": NetworkSpec("GoogLeNet (torchvision)", GoogLeNet, "inception4c", SYMMETRIC, INCEPTION, aux=True),
    "googlenet_bvlc": NetworkSpec("GoogLeNet (Caffe, 2015)", BVLC, "inception4c", CAFFE, INCEPTION, aux=True),
    "googlenet_places365": NetworkSpec("GoogLeNet Places365", BVLC, "inception4c", PLACES, INCEPTION, 365, aux=True),
    "inception_v3": NetworkSpec(
        "Inception v3", InceptionV3, "Mixed_6c", SYMMETRIC, ("Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c"), aux=True
    ),
    "vgg16": NetworkSpec("VGG-16", VGG16, "relu4_3", IMAGENET, ("features.22", "features.29")),
    "vgg19": NetworkSpec("VGG-19", VGG19, "relu4_4", IMAGENET, ("features.26", "features.35")),
    "resnet50": NetworkSpec("ResNet-50", ResNet50, "layer3", IMAGENET, ("layer3", "layer4")),
    "alexnet": NetworkSpec("AlexNet", AlexNet, "relu5", IMAGENET, ("features.7", "features.9", "features.11")),
}


def entry(name):
    """The registry's entry for `name`; UserError with suggestions if there is none."""
    if name not in REGISTRY:
        raise UserError(f"there is no network {name!r}: {suggest(name, REGISTRY)}")
    return REGISTRY[name]


# frozen up to here, inclusive, unless another is asked for: edges and textures, which every picture is made of
FREEZE_TO = {
    "googlenet": "inception3b",
    "googlenet_bvlc": "inception3b",
    "googlenet_places365": "inception3b",
    "inception_v3": "Mixed_5d",
    "vgg16": "pool3",
    "vgg19": "pool3",
    "resnet50": "layer2",
    "alexnet": "pool2",
}
