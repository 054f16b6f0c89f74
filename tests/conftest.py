"""What tests share: the root of the checkout, scripts in processes of their own, small images, the bundled network."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

os.environ.setdefault("MLX_ENABLE_TF32", "0")  # on CUDA and M5, float32 products would have 10 bits

import models
from models.dreaming import background
from models.kernels import pooling_gpu, pooling_kernels

import kernels_in_cpp
import numpy as np
import pytest
from PIL import Image

from dataset.images import write_image

# CI may start the tests in the background, where shells have Ctrl-C ignored, and programs that the tests start inherit
# that: set it right, since some tests interrupt them
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def signals_as_before():
    """A script that a test runs in this process sets handlers for the whole of it, and ends with Ctrl-C ignored."""
    before = {sort: signal.getsignal(sort) for sort in (signal.SIGINT, signal.SIGTERM)}
    yield
    for sort, handler in before.items():
        signal.signal(sort, handler)


class Finished(NamedTuple):
    """How a script ended: its exit status, and all that it wrote to stdout and stderr."""

    status: int
    out: str
    err: str


def script_command(script, *arguments):
    """The words that run a script of the checkout with this Python."""
    return [sys.executable, str(ROOT / script), *map(str, arguments)]


def run(script, *arguments, cwd=None, timeout=120, **options):
    """Run a script of the checkout, such as "dream.py", in a process of its own."""
    done = subprocess.run(
        script_command(script, *arguments), cwd=cwd, capture_output=True, text=True, timeout=timeout, **options
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def noise_image(height, width, channels=3):
    """uint8 H x W x channels, every pixel drawn by itself: what no encoder can keep."""
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def smooth_image(height, width, seed=0):
    """uint8 H x W x 3, smooth enough to survive an encoder."""
    small = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def sky_image(height=48, width=64):
    """float32 H x W x 3 whose colors run slowly, as a sky's do."""
    y, x = np.mgrid[:height, :width] / 64
    return np.dstack([90 + 60 * y, 120 + 40 * x, 190 - 50 * y]).astype(np.float32)


def write_photo(path, height=33, width=47, seed=0):
    """Write smooth_image() as a user's file, and return its path."""
    Image.fromarray(smooth_image(height, width, seed)).save(path)
    return path


@pytest.fixture
def photo(tmp_path):
    """photo.png, 33 x 47 pixels (odd, as encoders dislike it), in the test's folder."""
    return write_photo(tmp_path / "photo.png")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The test's folder, made the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def net():
    """The bundled network."""
    return models.load("googlenet", weights=models.STARTER)


@pytest.fixture
def kernels(monkeypatch):
    """Let the GPU's pooling kernels run, as C++."""
    if not shutil.which("c++"):
        pytest.skip("there is no C++ compiler")
    pooling_gpu.are_right.cache_clear()
    monkeypatch.setattr(pooling_kernels, "run", kernels_in_cpp.run)
    yield
    pooling_gpu.are_right.cache_clear()


# --- What concepts are made of ---


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The bundled network in a folder of the tests', where backgrounds may be kept."""
    path = tmp_path_factory.mktemp("weights") / "own_mlx.npz"
    shutil.copy(models.STARTER, path)
    return models.load(weights=path)


@pytest.fixture
def few_backgrounds(own, monkeypatch):
    """Backgrounds are made for one early layer, which takes less time than for all, and none comes along."""
    monkeypatch.setattr(background, "entry", lambda name: SimpleNamespace(concept_layers=["inception3b"]))
    monkeypatch.setattr(background, "WEIGHTS", own.path.parent / "none")
    yield
    own.path.with_name("own_mlx.background.npz").unlink(missing_ok=True)


def write_grains(folder, count, seed=0):
    """Write images of grains that grow stronger from left to right, and return their folder."""
    rng = np.random.default_rng((seed, 1))
    for i in range(count):
        grain = rng.normal(0, 60, (40, 40, 3)) * np.linspace(0, 1, 40)[:, None]
        write_image(folder / f"{i:02}.png", 127 + grain)
    return folder


@pytest.fixture
def slugs(tmp_path):
    """A folder of three images of one thing."""
    return write_grains(tmp_path / "slugs", 3)


@pytest.fixture
def photographs(tmp_path):
    """A folder of six images of all kinds: of one color each."""
    rng = np.random.default_rng(5)
    for i in range(6):
        write_image(tmp_path / "photographs" / f"{i}.png", np.full((40, 40, 3), rng.uniform(0, 255, 3)))
    return tmp_path / "photographs"
