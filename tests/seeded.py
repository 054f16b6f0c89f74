"""What the references (make_references.py, with torch) and the tests (test_networks.py, with MLX) must have in common.

Both draw the same weights and pictures from here, so that a reference is a few numbers an activation and no file
of weights. The draws are PCG64's raw bits, whose stream NumPy guarantees for all its versions.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REFERENCES = Path(__file__).parent / "references"
CLASSES = 10
PERIOD = 1_000_003  # longer draws repeat, since VGG has 130 million weights; a prime, so that no two rows are alike
SAMPLES, PROJECTIONS = 24, 8  # of an activation


@dataclass(frozen=True)
class Case:
    """One network as it is compared.

    The sizes are odd and not square, and such that every pooling layer meets an even side and an odd one where
    that matters (where its last window hangs over the border, or does not reach it).
    """

    size: tuple  # height, width
    gradients: tuple  # layers whose 1/2 sum a^2 is differentiated with respect to the picture
    batch: int = 1
    biases: float = 0.2  # their scale: that of the activations
    gain: float = 0.9  # of batch norm: less where residual blocks add up


CASES = {
    "alexnet": Case((75, 101), ("features.4", "features.12", "classifier.6"), batch=2),
    "googlenet": Case((65, 91), ("inception3a.branch2.0", "inception4c", "fc")),
    "vgg16": Case((45, 67), ("features.20", "features.30")),
    "vgg19": Case((51, 67), ("features.25", "classifier.6")),
    "googlenet_bvlc": Case((65, 91), ("inception3a.branch3.1", "inception4c", "fc"), biases=20),
    "googlenet_places365": Case((51, 69), ("inception5b",), biases=20),
    "inception_v3": Case((123, 121), ("Mixed_6c", "fc")),
    "resnet50": Case((65, 91), ("layer3.5", "fc"), gain=0.5),
}

# auxiliary classifiers whose reference takes one size of picture only: compared on a map of theirs, N x H x W x C
HEADS = {
    ("googlenet_bvlc", "aux1"): (1, 14, 14, 512),
    ("googlenet_bvlc", "aux2"): (1, 14, 14, 528),
    ("inception_v3", "AuxLogits"): (2, 17, 20, 768),
}

# maximum pools of the networks: kernel, stride, padding, ceil mode
POOLS = ((2, 2, 0, False), (2, 2, 0, True), (3, 2, 0, False), (3, 2, 0, True), (3, 2, 1, False), (3, 1, 1, False))

# a row for every activation, and one for every gradient, named "gradient of LAYER"
TABLE = np.dtype([("name", "S40"), ("shape", "4i4"), ("largest", "f4"), ("values", f"{SAMPLES + PROJECTIONS}f4")])


@dataclass(frozen=True)
class Training:
    """Two steps of fine-tuning, as make_train_references.py and test_train.py take them."""

    batch: int = 4
    size: int = 64
    labels: tuple = (3, 1, 4, 1)
    rate: float = 0.05
    head_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 0.01
    smoothing: float = 0.1
    clip: float = 0.5
    moved: tuple = ("inception5a", "fc", "aux2")  # of which the changes are compared as well


TRAINING = Training()
TRAINING_TABLE = np.dtype([("name", "S64"), ("largest", "f4"), ("values", f"{SAMPLES + PROJECTIONS}f4")])


def draw(key, shape):
    """Uniform float32 in -1..1, the same for the same key."""
    size = int(np.prod(shape))
    bits = np.random.PCG64(zlib.crc32(key.encode())).random_raw(min(size, PERIOD))
    return np.resize((bits >> np.uint64(40)).astype(np.float32) / 2**23 - 1, shape)


def weights(shapes, case):
    """{key: array} for {key: shape in torch's order}, under which activations neither vanish nor explode."""
    arrays = {}
    for key, shape in shapes.items():
        values = draw(key, shape)
        if key.endswith("running_mean"):
            values *= 0.3
        elif key.endswith("running_var"):
            values = 1 + 0.5 * values
        elif key.endswith("bias"):
            values *= case.biases
        elif len(shape) == 1:  # batch norm's
            values = case.gain * (1 + 0.45 * values)
        else:
            values *= np.sqrt(3 * 2 / np.prod(shape[1:]))  # variance 2 / fan-in: He et al., 2015
        arrays[key] = values
    return arrays


def picture(batch, height, width):
    """batch x height x width x 3, RGB 0..255."""
    return 127.5 + 127.5 * draw("picture", (batch, height, width, 3))


def digest(activation):
    """(largest magnitude, values): elements here and there, then projections on random vectors, which no wrong
    element escapes. activation: N x H x W x C or N x C.
    """
    flat = np.asarray(activation, np.float64).ravel()
    where = ((draw("samples", (SAMPLES,)) + 1) / 2 * flat.size).astype(int)
    projections = draw("projections", (PROJECTIONS, flat.size)) @ flat / np.sqrt(flat.size)
    return np.abs(flat).max(), np.concatenate([flat[where], projections])
