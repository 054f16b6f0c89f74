"""What is compiled computes the same numbers, and the image's shifts are those of mx.roll."""

import os
import subprocess
import sys

import models  # noqa: F401  (before MLX)
from models.kernels import compilation
from models.kernels.arrays import roll

import mlx.core as mx
import numpy as np
import pytest
from conftest import ROOT

DREAM = """
import models, dream, numpy as np
net = models.load("googlenet", weights=models.STARTER)
image = np.random.default_rng(0).uniform(80, 180, (96, 128, 3)).astype(np.float32)
dreamed = dream.deepdream(net, image, ["inception4c"], octaves=1, steps=4)
print(dreamed.astype(np.float64).sum().hex(), dreamed.std())
"""


def test_a_compiled_dream_is_the_same_to_the_bit(tmp_path):
    """Also where there is no g++, without which MLX compiles nothing."""
    plain = {name: value for name, value in os.environ.items() if name != "MLX_DISABLE_COMPILE"}
    words = []
    for environment in ({}, {"PATH": str(tmp_path)}, {"MLX_DISABLE_COMPILE": "1"}):
        command = [sys.executable, "-c", DREAM]
        done = subprocess.run(command, env=plain | environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        words.append(done.stdout)
    assert words[0] == words[1] == words[2] and float(words[0].split()[1]) > 1


@pytest.mark.skipif("not (compilation.on_cpu() and compilation.mode_setter())", reason="compiling fuses here")
def test_a_shape_that_comes_again_is_not_laid_out_again():
    calls = []

    def double(x):
        calls.append(x.shape)
        return x * 2 + 1

    function = compilation.compiled(double)
    for shape in ((3,), (3,), (3,), (5,), (3,)):
        assert mx.array_equal(function(mx.ones(shape)), mx.full(shape, 3))
    assert calls == [(3,), (3,), (5,)]  # once as it is, once to be compiled


@pytest.mark.parametrize("shift", [(0, 0), (3, 5), (-3, -5), (0, -7), (9, 0), (-25, 31), (40, -60)])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_shifted_as_by_mlx(shift, channels):
    x = mx.array(np.random.default_rng(0).normal(size=(11, 17, channels)).astype(np.float32))
    assert mx.array_equal(roll(x, *shift), mx.roll(x, shift, axis=(0, 1)))
