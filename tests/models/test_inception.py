"""An Inception module as one function against its branches one by one: values and all gradients."""

import models  # noqa: F401  (before MLX)
from models.googlenet import BasicConv2d, Inception, folded
from models.googlenet_bvlc import ConvReLU
from models.kernels.bands import one
from models.kernels.inception import inception_gpu

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

WIDTHS = (12, 7, 5, 9, 3, 4, 6)


def normal(seed, shape):
    return mx.array(np.random.default_rng(seed).standard_normal(shape), mx.float32)


def branches_one_by_one(module, x):
    branches = (module[branch] for branch in ("branch2", "branch3", "branch4"))
    return mx.concatenate([module.branch1(x), *(last(first(x)) for first, last in branches)], axis=-1)


def as_one(module, x):
    return inception_gpu(x, folded(module.heads(), x.dtype), folded(module.tails(), x.dtype))


def before_a_pooling(module, x):
    """The output whose bias and ReLU a pooling takes later, on a GPU."""
    y = as_one(module, one(x))
    return mx.maximum(y.before_relu.parts[0] + y.bias, 0)


def by_stages(module, x):
    *_, (_, output) = module.stages("module", x)
    return output


def module_with_weights(conv, size5x5):
    module = Inception(conv, size5x5, *WIDTHS)
    module.update(
        tree_map(lambda a: normal(1, a.shape) ** 2 if a.ndim == 1 else normal(2, a.shape), module.parameters())
    )
    return module


def check_gradients(module, size, as_one):
    x = mx.maximum(normal(0, (*size, WIDTHS[0])), 0)  # with ties, as behind every ReLU
    cotangent = normal(3, as_one(module, x).shape)

    def gradients(function):
        def objective(parameters, x):
            module.update(parameters)
            return (function(module, x) * cotangent).sum()

        parameters = module.parameters()
        value, found = mx.value_and_grad(objective, argnums=(0, 1))(parameters, x)
        module.update(parameters)
        return value, found

    def close(ours, theirs):
        assert mx.abs(ours - theirs).max() <= 1e-4 * mx.abs(theirs).max()

    tree_map(close, gradients(as_one), gradients(branches_one_by_one))


@pytest.mark.parametrize("conv, size5x5", [(BasicConv2d, 3), (ConvReLU, 5)])
@pytest.mark.parametrize("size", [(1, 9, 14), (2, 7, 6)])
@pytest.mark.parametrize("as_one", [as_one, before_a_pooling, by_stages])
def test_a_module_as_one(conv, size5x5, size, as_one):
    check_gradients(module_with_weights(conv, size5x5).eval(), size, as_one)


@pytest.mark.parametrize("conv, size5x5", [(BasicConv2d, 3), (ConvReLU, 5)])
@pytest.mark.parametrize("as_one", [as_one, before_a_pooling])
def test_a_module_with_a_gpus_kernels(kernels, conv, size5x5, as_one):
    check_gradients(module_with_weights(conv, size5x5).eval(), (2, 7, 6), as_one)


@pytest.mark.parametrize(
    "conv, size5x5, fixed", [(BasicConv2d, 3, 0), (BasicConv2d, 3, 1), (BasicConv2d, 3, 3), (ConvReLU, 5, 0)]
)
def test_a_module_that_learns(conv, size5x5, fixed):
    """Also with the statistics of some batch norms, or of all, fixed."""
    module = module_with_weights(conv, size5x5).train()
    for head in module.heads()[:fixed]:
        head.bn.eval()
    check_gradients(module, (3, 7, 6), by_stages)
