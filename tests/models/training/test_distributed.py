"""Batch norm over the processes' shares of a batch."""

from models.training import distributed

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from seeded import draw


def test_batch_norm_is_that_of_mlx():
    x, weight, bias = (
        mx.array(3 + 2 * draw("x", (4, 5, 6, 7))),
        mx.array(1 + draw("w", (7,))),
        mx.array(draw("b", (7,))),
    )
    results = []
    for norm in (nn.BatchNorm(7), distributed.BatchNorm(7)):

        def loss(x, weight, bias, norm=norm):
            norm.weight, norm.bias = weight, bias
            return (mx.sin(norm(x)) * draw("k", (4, 5, 6, 7))).sum()

        results.append([*mx.grad(loss, argnums=(0, 1, 2))(x, weight, bias), norm.running_mean, norm.running_var])
    for theirs, ours in zip(*results, strict=True):
        assert np.allclose(theirs, ours, rtol=1e-3, atol=1e-5)
