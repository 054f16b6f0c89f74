"""The networks against other people's implementations, by the references that make_references.py made.

Every stage, every branch and the logits, in float32, on odd sizes; and gradients with respect to the picture.
"""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from seeded import CASES, CLASSES, REFERENCES, digest, picture, weights

import models

TOLERANCE = 1e-4  # of the largest magnitude of an activation; float32's own rounding comes to some 1e-6


@pytest.fixture(scope="module", params=CASES)
def compared(request):
    """(name, net, images, {reference's name: row}) of each network in turn."""
    name = request.param
    case = CASES[name]
    entry = models.entry(name)
    net = entry.build(CLASSES, aux=entry.aux).eval()
    net.fill(seeded_weights(net, case), "the seeded weights")
    net.metadata["mean"], net.metadata["std"] = entry.statistics.mean, entry.statistics.std
    net.metadata["channel_order"] = entry.statistics.order
    rows = np.load(REFERENCES / f"{name}.npy")
    return name, net, mx.array(picture(case.batch, *case.size)), {row["name"].decode(): row for row in rows}


def seeded_weights(net, case):
    """{path: array in MLX's layout}."""
    shapes = {path: array.shape for path, array in tree_flatten(net.parameters())}
    torchs = {path: (s[0], s[3], s[1], s[2]) if len(s) == 4 else s for path, s in shapes.items()}
    arrays = weights(torchs, case)
    return {path: a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for path, a in arrays.items()}


def error(array, row):
    """The largest difference from the reference, relative to the largest magnitude of the reference's activation."""
    assert list(array.shape) == [side for side in row["shape"] if side]
    largest, values = digest(array)
    return max(abs(largest - row["largest"]), np.abs(values - row["values"]).max()) / row["largest"]


def test_activations(compared):
    _, net, images, rows = compared
    activations = net.activations(images, net.layers)
    mx.eval(activations)
    assert set(net.layers) == {name for name in rows if not name.startswith("gradient of ")}
    errors = {name: error(activations[name], rows[name]) for name in net.layers}
    assert {name: value for name, value in errors.items() if value > TOLERANCE} == {}


def test_gradients(compared):
    name, net, images, rows = compared
    for layer in CASES[name].gradients:
        gradient = mx.grad(lambda x, layer=layer: (net.activations(x, [layer])[layer] ** 2).sum() / 2)(images)
        assert error(gradient, rows[f"gradient of {layer}"]) < TOLERANCE, layer
