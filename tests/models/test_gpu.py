"""What a GPU gets to do, seen without one: kernels and their traffic, the same gradient twice, float16."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

# in a process of its own, whose kernels take a GPU's way for good
COUNT = """
import sys
import forced_gpu
import models
from tools.count_kernels import count_step, use_stand_ins
forced_gpu.force()
if "kernels" in sys.argv:
    use_stand_ins()
net = models.load("googlenet", weights=models.STARTER)
counts = count_step(net, "inception4c", 400, 600)
print(sum(counts.kernels.values()), sum(counts.traffic.values()), sorted(counts.kernels), len(counts.shapes))
"""
DREAM = """
import forced_gpu
import models, dream, numpy as np
forced_gpu.force()
net = models.load("googlenet", weights=models.STARTER)
image = np.random.default_rng(0).uniform(80, 180, (96, 128, 3)).astype(np.float32)
dreams = [
    dream.deepdream(net, image, ["inception4c"], octaves=1, steps=steps, precision=precision)
    for steps, precision in ((3, "float32"), (3, "float32"), (1, "float32"), (1, "float16"))
]
print(np.array_equal(*dreams[:2]), 10 * np.log10(255**2 / np.mean((dreams[2] - dreams[3]) ** 2)))
"""


def python(code, *arguments):
    """Run a program on the forced branch, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_step_is_few_kernels_and_little_traffic():
    """331 kernels and 2.9 GB in 2015's plainest form; and no scatter, whose sums would differ from run to run."""
    out = python(COUNT)
    kernels, traffic = map(int, out.split()[:2])
    assert 80 < kernels <= 138
    assert 0.4e9 < traffic <= 0.62e9
    assert "Scatter" not in out and "Convolution" in out
    assert int(out.split()[-1]) <= 41  # shapes of convolutions, for each of which CUDA keeps a plan


def test_a_step_with_pooling_kernels_is_fewer_still():
    kernels, *_ = map(int, python(COUNT, "kernels").split()[:2])
    assert 80 < kernels <= 117


def test_dreams_repeat_and_float16_looks_alike():
    same, psnr = python(DREAM).split()
    assert same == "True"
    assert float(psnr) > 40


@pytest.mark.skipif("forced_gpu" in sys.modules, reason="on the forced branch, float16 is allowed")
def test_float16_is_refused_on_a_cpu(net):
    from dataset.cli import UsageError
    from dream import gradient_function

    with pytest.raises(UsageError, match="GPUs"):
        gradient_function(net, [], precision="float16")
