import signal
from pathlib import Path

import models

import pytest

# CI may start the tests in the background, where shells have Ctrl-C ignored, and programs that the tests start inherit
# that: set it right, since some tests interrupt them
signal.signal(signal.SIGINT, signal.default_int_handler)


ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def net():
    """The bundled network."""
    return models.load("googlenet", weights=models.STARTER)
