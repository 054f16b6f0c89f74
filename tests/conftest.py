"""What tests share: the root of the checkout, scripts in processes of their own, small images, the bundled network."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import models

import numpy as np
import pytest
from PIL import Image

# CI may start the tests in the background, where shells have Ctrl-C ignored, and programs that the tests start inherit
# that: set it right, since some tests interrupt them
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


class Finished(NamedTuple):
    """How a script ended: its exit status, and all that it wrote to stdout and stderr."""

    status: int
    out: str
    err: str


def command(script, *arguments):
    """The words that run a script of the checkout with this Python."""
    return [sys.executable, str(ROOT / script), *map(str, arguments)]


def run(script, *arguments, cwd=None, timeout=120, **options):
    """Run a script of the checkout, such as "dream.py", in a process of its own."""
    done = subprocess.run(
        command(script, *arguments), cwd=cwd, capture_output=True, text=True, timeout=timeout, **options
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def noise_image(height, width, channels=3):
    """uint8 H x W x channels, every pixel drawn by itself: what no encoder can keep."""
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def smooth_image(height, width, seed=0):
    """uint8 H x W x 3, smooth enough to survive an encoder."""
    small = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def write_photo(path, height=33, width=47, seed=0):
    """Write smooth_image() as a user's file, and return its path."""
    Image.fromarray(smooth_image(height, width, seed)).save(path)
    return path


@pytest.fixture
def photo(tmp_path):
    """photo.png, 33 x 47 pixels (odd, as encoders dislike it), in the test's folder."""
    return write_photo(tmp_path / "photo.png")


@pytest.fixture(scope="module")
def net():
    """The bundled network."""
    return models.load("googlenet", weights=models.STARTER)
