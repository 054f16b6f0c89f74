"""The pooling kernels for GPUs, as C++, against MLX's operators; and what happens where they are wrong."""

from models.kernels import pooling_gpu, pooling_kernels
from models.kernels.pooling_gpu import AROUND, Windows

import mlx.core as mx
import numpy as np
import pytest

WINDOWS = [
    *(Windows(3, 2, (0, 1), (0, 0)), Windows(3, 2, (1, 1), (1, 1)), Windows(2, 2, (0, 0), (0, 1))),
    *(AROUND, Windows(3, 3, (0, 0), (1, 2)), Windows(2, 3, (0, 0), (0, 0)), Windows(5, 2, (2, 2), (2, 1))),
]


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("size", [(1, 9, 14, 3), (2, 16, 11, 4)])
def test_kernels_against_operators(kernels, windows, relu, size):
    rng = np.random.default_rng(0)
    x, bias = (mx.array(rng.integers(-3, 4, shape), mx.float32) for shape in (size, size[3:]))  # many are equal
    y, places = pooling_kernels.pool(windows, x, bias, relu)
    plain, plain_places = pooling_gpu.by_operators(windows, x, bias, relu)
    assert mx.array_equal(y, plain)
    dy = mx.array(rng.integers(-9, 10, y.shape), mx.float32)
    dx = pooling_kernels.gradient(windows, dy, places, size)
    assert mx.array_equal(dx, pooling_gpu.gradient_by_operators(windows, dy, plain_places, size))
    assert mx.array_equal(pooling_kernels.gradient(windows, dy, places, size, plus=x), dx + x)


@pytest.mark.parametrize("relu", [False, True])
def test_a_pooling_made_of_kernels(kernels, relu, monkeypatch):
    """The same function and gradients as of operators, to which it goes back where the kernels are wrong."""
    rng = np.random.default_rng(0)
    x, bias = (mx.array(rng.normal(size=shape), mx.float32) for shape in ((2, 9, 14, 3), 3))
    windows = Windows(3, 2, (1, 1), (1, 1))
    pool = pooling_gpu.max_pool_gpu(windows, relu)
    assert pooling_gpu.has_kernels(x, windows, relu)
    ours, gradients = mx.value_and_grad(lambda *arrays: (pool(*arrays) ** 2).sum(), argnums=(0, 1))(x, bias)
    inputs, outputs, text = pooling_kernels.KERNELS["gradient"]
    wrong = text.replace("sum += float(dy[window]);", "sum = float(dy[window]);")
    assert wrong != text
    monkeypatch.setitem(pooling_kernels.KERNELS, "gradient", (inputs, outputs, wrong))
    pooling_gpu.are_right.cache_clear()
    assert not pooling_gpu.has_kernels(x, windows, relu)
    plain, expected = mx.value_and_grad(lambda *arrays: (pool(*arrays) ** 2).sum(), argnums=(0, 1))(x, bias)
    assert ours.item() == plain.item()
    for ours, theirs in list(zip(gradients, expected, strict=True))[: 1 + relu]:
        assert mx.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_kernels_that_cannot_be_had():
    pooling_gpu.are_right.cache_clear()
    assert pooling_gpu.are_right(3, 2, False, False, mx.float32) == (mx.default_device() == mx.Device(mx.gpu))
