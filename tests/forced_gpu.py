"""A pytest plugin, `pytest -p forced_gpu`: the kernels take a GPU's way although MLX computes on a CPU.

What cannot be seen here is a GPU's own arithmetic; what can, is every line of ours that runs on one.
"""

import models  # noqa: F401  (before MLX)
from models import googlenet, layers
from models.dreaming import objectives, tiles
from models.kernels import arrays, bands, compilation, convolution, pooling, relu

import mlx.core as mx


def force():
    """Take Metal's way from here on."""
    for module in (arrays, bands, compilation, convolution, googlenet, layers, objectives, pooling, relu, tiles):
        module.on_cpu = lambda: False
    mx.metal.is_available = lambda: True


force()
