"""The networks against other people's implementations, by the references that make_references.py made.

Every stage, every branch and the logits, in float32, on odd sizes; and gradients with respect to the picture.
"""

import models
from models import layers
from models.kernels import pooling

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from seeded import CASES, CLASSES, HEADS, POOLS, REFERENCES, digest, draw, picture
from seeded_networks import build, load_seeded

from dataset.cli import UsageError, UserError

TOLERANCE = 1e-4  # of the largest magnitude of an activation; float32's own rounding comes to some 1e-6
GRADIENT_TOLERANCE = 1e-3  # rounding may open or close a ReLU whose input is almost 0, which shows that much


def references(name):
    return {row["name"].decode(): row for row in np.load(REFERENCES / f"{name}.npy")}


@pytest.fixture(scope="module", params=CASES)
def compared(request):
    """(name, net, pictures, references) of each network in turn."""
    case = CASES[request.param]
    images = mx.array(picture(case.batch, *case.size))
    return request.param, load_seeded(build(request.param), case), images, references(request.param)


def error(array, row):
    """The largest difference from the reference, relative to the largest magnitude in it."""
    assert list(array.shape) == [side for side in row["shape"] if side]
    largest, values = digest(array)
    return max(abs(largest - row["largest"]), np.abs(values - row["values"]).max()) / row["largest"]


def test_activations(compared):
    name, net, images, rows = compared
    names = [layer for layer in net.layers if (name.replace("places365", "bvlc"), layer) not in HEADS]
    assert set(names) == {key for key in rows if not key.startswith("gradient of ")}
    activations = net.activations(images, names)
    mx.eval(activations)
    errors = {layer: error(activations[layer], rows[layer]) for layer in names}
    assert {layer: value for layer, value in errors.items() if not value < TOLERANCE} == {}


def test_gradients(compared):
    """Where two cells of a pooling's window are the same but for rounding, its gradient may go to either: so the image
    is also tried a little, less than its own rounding, brighter.
    """
    name, net, images, rows = compared
    for layer in CASES[name].gradients:
        gradient = mx.grad(lambda x, layer=layer: (net.activations(x, [layer])[layer] ** 2).sum() / 2)
        found = (error(gradient(images * brighter), rows[f"gradient of {layer}"]) for brighter in (1, 1 + 1e-7))
        assert any(value < GRADIENT_TOLERANCE for value in found), layer


def test_auxiliary_classifiers(compared):
    """On the map that the reference takes; on any other picture they work as well."""
    name, net, images, _ = compared
    rows = references("heads")
    for model, head in HEADS:
        if model == name:
            activation = net[head](mx.array(draw(head, HEADS[model, head])))
            assert error(activation, rows[f"{name} {head}"]) < TOLERANCE, head
            logits = net.activations(images, [head])[head]
            assert logits.shape == (len(images), CLASSES) and mx.isfinite(logits).all()


def on_small_maps(name, function, sizes):
    """A layer's outputs on maps of every height and width in `sizes`, and the gradients of 1/2 sum y^2."""
    maps = [mx.array(draw(name, (1, height, width, 7))) for height in sizes for width in sizes]
    outputs = mx.concatenate([function(x).flatten() for x in maps])
    gradients = mx.concatenate([mx.grad(lambda x: (function(x) ** 2).sum() / 2)(x).flatten() for x in maps])
    rows = references("layers")
    assert error(outputs, rows[name]) < TOLERANCE
    assert error(gradients, rows[f"gradient of {name}"]) < TOLERANCE


@pytest.mark.parametrize(("kernel", "stride", "padding", "ceil"), POOLS)
def test_max_pool(kernel, stride, padding, ceil):
    name = f"max_pool {kernel} {stride} {padding} {ceil}"
    on_small_maps(name, layers.MaxPool2d(kernel, stride, padding, ceil), range(3, 12))


def test_max_pool_refuses_what_is_too_small():
    with pytest.raises(ValueError, match="larger than its input, 2 x 9"):
        pooling.max_pool(mx.zeros((1, 2, 9, 4)), 3, 2)


@pytest.mark.parametrize("size", [4, 6, 7])
def test_adaptive_avg_pool(size):
    on_small_maps(f"adaptive_avg_pool {size}", lambda x: pooling.adaptive_avg_pool(x, size), range(1, 16))


def test_avg_pool_3x3():
    on_small_maps("avg_pool_3x3", pooling.avg_pool_3x3, range(1, 6))


def test_lrn():
    norm = layers.LRN()
    on_small_maps("lrn", lambda x: norm(300 * x), range(1, 4))


LITERATURE = {
    "googlenet": {
        "inception_4c/output": "inception4c",
        "inception_3b/5x5_reduce": "inception3b.branch3.0",
        "inception_5b/pool_proj": "inception5b.branch4.1",
        "conv2/3x3": "conv3",
        "pool3/3x3_s2": "maxpool3",
        "loss3/classifier": "fc",
        "mixed4c": "inception4c",
        "mixed4d_3x3_bottleneck": "inception4d.branch2.0",
        "mixed5a.conv_1x1": "inception5a.branch1",
        "inception4e.branch3": "inception4e.branch3.1",
        "logits": "fc",
    },
    "googlenet_bvlc": {
        "pool1/norm1": "norm1",
        "conv2/norm2": "norm2",
        "inception_3b/5x5_reduce": "inception3b.branch3.0",
        "inception_4c/pool": "inception4c.branch4.0",
        "loss1/classifier": "aux1",
        "conv2d0": "conv1",
    },
    "inception_v3": {"mixed0": "Mixed_5b", "mixed5": "Mixed_6c", "mixed_10/join": "Mixed_7c", "mixed6e": "Mixed_6e"},
    "vgg16": {"conv1_1": "features.0", "relu4_3": "features.22", "pool5": "features.30", "fc8": "classifier.6"},
    "vgg19": {"relu5_1": "features.29", "conv5_4": "features.34", "fc6": "classifier.0", "fc": "classifier.6"},
    "resnet50": {"layer3": "layer3.5", "layer1.0.downsample": "layer1.0.downsample.1", "logits": "fc"},
    "alexnet": {"conv2": "features.3", "relu5": "features.11", "pool5": "features.12", "relu7": "classifier.5"},
}


@pytest.mark.parametrize("name", LITERATURE)
def test_names_of_the_literature(name):
    net = build(name)
    assert {theirs: net.resolve(theirs) for theirs in LITERATURE[name]} == LITERATURE[name]


def test_a_wrong_name_gets_the_closest_right_ones():
    with pytest.raises(UsageError, match="'inception4z'.* did you mean inception4"):
        build("googlenet").activations(mx.zeros((1, 64, 64, 3)), ["inception4z"])


@pytest.mark.parametrize("name", models.REGISTRY)
def test_default_layer_and_strides(name):
    net = build(name)
    channels, stride = net.layer_info[net.resolve(models.entry(name).default_layer)]
    assert channels >= 256 and stride in (8, 16)
    strides = [stride for _, stride in net.layer_info.values() if stride]
    assert set(strides) <= {1, 2, 4, 8, 16, 32} and strides[0] <= 4 and strides[-1] == 32


@pytest.mark.parametrize(
    ("name", "smallest"),
    [("alexnet", 63), ("googlenet", 32), ("googlenet_bvlc", 32), ("inception_v3", 75), ("resnet50", 32), ("vgg16", 32)],
)
def test_the_smallest_picture(name, smallest):
    net = build(name)
    assert net.accepts_size(smallest, 100, ["logits"]) and net.accepts_size(100, smallest, ["logits"])
    assert not net.accepts_size(smallest - 1, 100, ["logits"]) and not net.accepts_size(100, smallest - 1, ["logits"])


def test_nothing_is_computed_beyond_the_layer_asked_for():
    """A picture that is too small for the rest is enough for the beginning."""
    activation = build("inception_v3").activations(mx.zeros((1, 9, 9, 3)), ["Conv2d_2b_3x3"])["Conv2d_2b_3x3"]
    assert activation.shape == (1, 2, 2, 64)


@pytest.mark.parametrize("name", models.REGISTRY)
def test_a_network_without_a_classifier(name):
    """Some published weights have none: then there are no logits, and no parameters that the file would lack."""
    net = build(name, num_classes=0)
    whole = build(name)
    heads = {layer for layer in whole.layers if layer.startswith(("aux", "Aux"))} | {whole.resolve("logits")}
    if hasattr(whole, "features"):  # VGG and AlexNet: published trunks end at the last pooling
        heads |= {layer for layer in whole.layers if not layer.startswith("features.")}
    assert net.layers == [layer for layer in whole.layers if layer not in heads]
    assert all(0 not in array.shape for _, array in tree_flatten(net.parameters()))
    for layer in ("logits", "fc"):
        with pytest.raises(UsageError, match="no layer"):
            net.resolve(layer)


def test_loading_says_what_does_not_fit():
    net = build("alexnet")
    arrays = {path: np.zeros(array.shape, np.float16) for path, array in tree_flatten(net.parameters())}
    del arrays["features.0.bias"]
    arrays["classifier.6.weight"] = np.zeros((3, 5), np.float16)
    arrays["stray"] = np.zeros(1, np.float16)
    with pytest.raises(UserError) as caught:
        net.load_arrays(arrays, "x.npz")
    assert str(caught.value) == (
        "x.npz: the weights do not fit: features.0.bias is missing; stray is unexpected; "
        "classifier.6.weight is 3 x 5 where 10 x 4096 is needed"
    )
