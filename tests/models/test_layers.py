"""The fast forms of the layers against MLX's own operators: values and all gradients, at odd sizes."""

import threading

from models import layers
from models.kernels import convolution, gpu, pooling, pooling_gpu, winograd

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

# kernel, stride, padding, input and output channels; 32 channels or more at 3x3 go Winograd's way
CONVOLUTIONS = [
    (1, 1, 0, 5, 7),
    (1, 2, 0, 5, 7),
    (3, 1, 1, 5, 7),
    (3, 1, 1, 33, 40),
    (3, 1, 1, 40, 64),
    (3, 1, 0, 32, 32),
    (3, 1, 0, 32, 48),
    (3, 2, 1, 33, 40),
    (3, 2, 0, 3, 8),
    (5, 1, 2, 6, 4),
    (7, 2, 3, 3, 8),
    (11, 4, 2, 3, 8),
    ((1, 7), 1, (0, 3), 6, 6),
    ((7, 1), 1, (3, 0), 6, 6),
]


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def normal(seed, *shape):
    return mx.array(np.random.default_rng(seed).standard_normal(shape), mx.float32)


def close(ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape
    assert mx.abs(ours - theirs).max().item() <= tolerance * mx.abs(theirs).max().item()


@pytest.mark.parametrize("size", [(1, 13, 18), (2, 17, 15)])
@pytest.mark.parametrize("kernel, stride, padding, inputs, outputs", CONVOLUTIONS)
def test_convolution(kernel, stride, padding, inputs, outputs, size):
    check_convolution(pair(kernel), pair(stride), pair(padding), inputs, outputs, size)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("product, strip", [(10**6, 2**14), (3000, 2**23), (1, 2**13)])
def test_winograd_in_pieces(monkeypatch, small, product, strip):
    monkeypatch.setattr(winograd, "small_products", lambda: small)
    monkeypatch.setattr(winograd, "SMALL_PRODUCT", product)
    monkeypatch.setattr(winograd, "STRIP", strip)
    check_convolution((3, 3), (1, 1), (1, 1), 32, 64, (2, 23, 18))


def check_convolution(kernel, stride, padding, inputs, outputs, size):
    x, bias = normal(0, *size, inputs), normal(2, outputs)
    weight = normal(1, outputs, *kernel, inputs) / (inputs * kernel[0] * kernel[1]) ** 0.5

    def plain(x, weight, bias):
        return mx.conv2d(x, weight, stride, padding) + bias

    def fast(x, weight, bias):
        return convolution.conv2d(x, weight, bias, stride, padding)

    expected = plain(x, weight, bias)
    close(fast(x, weight, bias), expected)
    cotangent = normal(3, *expected.shape)
    for ours, theirs in zip(*(mx.vjp(f, [x, weight, bias], [cotangent])[1] for f in (fast, plain)), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("size", [(1, 31, 42), (2, 33, 45)])
@pytest.mark.parametrize("kernel, stride, padding", [(7, 2, 3), (3, 2, 0), (11, 4, 2)])
def test_a_strided_convolution_of_blocks(kernel, stride, padding, size):
    x, weight = normal(0, *size, 3), normal(1, 8, kernel, kernel, 3)
    stride, padding = pair(stride), pair(padding)
    blocks, plain = (lambda x, f=f: f(x, weight, stride, padding) for f in (gpu.conv2d_of_blocks, mx.conv2d))
    close(blocks(x), plain(x))
    cotangent = normal(2, *plain(x).shape)
    close(*(mx.vjp(f, [x], [cotangent])[1][0] for f in (blocks, plain)))


def test_a_folded_batch_norm_follows_its_parameters():
    block = layers.BasicConv2d(4, 6, 3, padding=1).eval()
    x = normal(0, 1, 9, 11, 4)
    for seed in (1, 2):  # the second time something folded is already there
        block.conv.weight, block.bn.running_mean = normal(seed, 6, 3, 3, 4), normal(seed + 10, 6)
        block.bn.running_var = mx.abs(normal(seed + 20, 6)) + 0.5
        close(block(x), nn.relu(block.bn(mx.conv2d(x, block.conv.weight, 1, 1))))


def test_gradients_of_parameters_pass_a_folded_batch_norm():
    block = layers.BasicConv2d(4, 6, 3, padding=1).eval()
    x = normal(0, 1, 9, 11, 4)

    def plain(parameters):
        block.update(parameters)
        return (nn.relu(block.bn(mx.conv2d(x, block.conv.weight, 1, 1))) ** 2).sum()

    def fast(parameters):
        block.update(parameters)
        return (block(x) ** 2).sum()

    parameters = block.trainable_parameters()
    ours, theirs = (nn.utils.tree_flatten(mx.grad(f)(parameters)) for f in (fast, plain))
    for (name, our), (_, their) in zip(ours, theirs, strict=True):
        assert mx.abs(our - their).max() <= 1e-4 * mx.abs(their).max(), name


def test_what_is_derived_is_kept_of_two_calls():
    """A layer may be asked with its weights as they are and with folded ones, in turn."""
    conv, made = layers.Conv2d(2, 3, 1).eval(), []
    weights = [normal(seed, 3, 1, 1, 2) for seed in range(3)]
    for i in (0, 1, 0, 1, 2, 1, 0):
        assert mx.array_equal(conv.cached("double", lambda w, i=i: made.append(i) or w * 2, weights[i]), weights[i] * 2)
    assert made == [0, 1, 2, 0]


def test_nothing_that_is_derived_is_a_parameter():
    block = layers.BasicConv2d(32, 32, 3, padding=1).eval()
    names = [name for name, _ in nn.utils.tree_flatten(block.parameters())]
    mx.grad(lambda x: block(x).sum())(normal(0, 1, 9, 11, 32))
    assert [name for name, _ in nn.utils.tree_flatten(block.parameters())] == names


@pytest.mark.parametrize("kernel, stride", [(3, 2), (3, 1), (2, 2)])
def test_pooling_of_large_maps_is_shared_among_threads(kernel, stride):
    x = normal(0, 1, 67, 131, 32)  # over the megabyte from which parallel_streams() cuts
    fast, plain = (lambda x: pooling.max_pool(x, kernel, stride)), nn.MaxPool2d(kernel, stride)
    close(fast(x), plain(x), 0)
    cotangent = normal(1, *plain(x).shape)
    close(*(mx.vjp(f, [x], [cotangent])[1][0] for f in (fast, plain)), 1e-6)


@pytest.mark.parametrize("size", [(1, 14, 19), (2, 15, 12)])
@pytest.mark.parametrize("kernel, stride, padding, end", [(3, 2, 0, 1), (3, 2, 1, 1), (2, 2, 0, 0), (3, 1, 1, 1)])
def test_a_relu_behind_a_gpus_pooling(kernel, stride, padding, end, size):
    x, bias = normal(0, *size, 5), normal(1, 5)
    edges = [(padding, end if (side + padding - kernel) % stride else padding) for side in size[1:]]
    fast = pooling_gpu.max_pool_gpu(pooling_gpu.Windows(kernel, stride, *edges), relu=True)

    def plain(x, bias):
        x = mx.pad(mx.maximum(x + bias, 0), [(0, 0), *edges, (0, 0)])
        cells = pooling_gpu.cells_of_windows(x, kernel, stride)
        return mx.stack(cells).max(axis=0)

    close(fast(x, bias), plain(x, bias), 0)
    cotangent = normal(2, *plain(x, bias).shape)
    for ours, theirs in zip(*(mx.vjp(f, [x, bias], [cotangent])[1] for f in (fast, plain)), strict=True):
        close(ours, theirs, 1e-5)


def test_equal_maxima_share_as_in_torch():
    gradient = mx.grad(lambda x: pooling.max_pool(x, 3, 2).sum())(mx.ones((1, 5, 5, 1)))
    assert gradient[0, :, :, 0].tolist() == [[1, 0, 1, 0, 0], [0] * 5, [1, 0, 1, 0, 0], [0] * 5, [0] * 5]


def test_layers_compute_in_another_thread():
    """MLX's streams belong to one Python thread each."""
    x = normal(0, 1, 67, 131, 32)
    results = []

    def work():
        gradient = mx.grad(lambda x: pooling.max_pool(x, 3, 2).sum())(x)
        mx.eval(gradient)
        results.append(gradient)

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(results) == 2 and mx.array_equal(*results)
