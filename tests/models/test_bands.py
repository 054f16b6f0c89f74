"""Bands of an image compute what the image as one band does, and so do parts of a batch."""

from models.kernels import bands

import mlx.core as mx
import pytest
from seeded import CASES, picture
from seeded_networks import build, load_seeded

TOLERANCE = 1e-6  # in float64, in which rounding opens no ReLU

# network: size, layers; odd sizes, with bands that begin in the middle of a window
SIZES = {
    "alexnet": ((171, 75), ("features.0", "features.5", "classifier.6")),
    "googlenet": ((161, 67), ("conv1", "inception3a.branch4.0", "inception4c", "fc")),
    "googlenet_bvlc": ((150, 65), ("norm2", "inception4a.branch3.1", "inception5b")),
    "googlenet_places365": ((139, 65), ("inception4c",)),
    "vgg16": ((93, 37), ("features.8", "features.30")),
    "vgg19": ((77, 35), ("features.25",)),
    "inception_v3": ((187, 93), ("Conv2d_4a_3x3", "Mixed_5b", "Mixed_6b", "Mixed_7b")),
    "resnet50": ((145, 67), ("maxpool", "layer2.0.downsample.0", "layer3.1", "layer4.2")),
}


@pytest.fixture
def any_size(monkeypatch):
    """Cut as finely as can be."""
    monkeypatch.setattr(bands, "IMAGE_ROWS", 8)
    monkeypatch.setattr(bands, "ROWS", 1)
    yield
    bands.use(bands.blas.bands())


def gradients_of(net, image, layers):
    """The activations of layers, and the gradients of 1/2 sum a^2 of each."""

    def objective(x, layer):
        a = net.activations(x, [layer], mx.float64)[layer]
        return (a * a).sum() / 2, a

    found = [mx.value_and_grad(objective)(image, layer) for layer in layers]
    return [array for (_, a), gradient in found for array in (a, gradient)]


def difference(ours, theirs):
    assert ours.shape == theirs.shape
    return (mx.abs(ours - theirs).max() / mx.abs(theirs).max()).item()


@pytest.mark.parametrize("name", CASES)
def test_bands_are_exact(name, any_size):
    size, layers = SIZES[name]
    net, image = load_seeded(build(name), CASES[name]), mx.array(picture(1, *size))
    bands.use(1)
    one = gradients_of(net, image, layers)
    for number in (2, 4, 8):
        bands.use(number)
        many = gradients_of(net, image, layers)
        differences = [difference(*pair) for pair in zip(many, one, strict=True)]
        assert max(differences) < TOLERANCE, (number, differences)


def test_rows_of_features_are_not_cut(any_size):
    """What a classifier learns from alone, train_dream.py --train fc, is N x C."""
    bands.use(2)
    features = mx.ones((8, 5))
    assert bands.cut(features) is features
    assert isinstance(bands.cut(mx.ones((8, 5, 5, 3))), bands.Bands)


@pytest.mark.skipif(not bands.on_cpu(), reason="a GPU has one band")
def test_each_band_takes_its_own_gradient():
    """A stream that took those of all bands would let the other cores wait."""
    streams, seen = bands.streams(2), []
    function = bands.differentiable(lambda x: x + x, lambda x, dy, y: seen.append(mx.default_stream(mx.cpu)) or dy + dy)

    def joined(x):
        return bands.join(bands.each(function, bands.Bands(mx.split(x, 2, axis=1), streams))).sum()

    assert (mx.grad(joined)(mx.ones((1, 8, 4, 2))) == 2).all()
    assert sorted(map(str, seen)) == sorted(map(str, streams))
