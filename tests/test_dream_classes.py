"""What a class dream shows: the bundled network itself recognises it."""

from models.dreaming.options import CLASS_DEFAULTS

import mlx.core as mx
import numpy as np
import pytest
from conftest import ROOT

from dataset.images import read_image, resize_image, resize_to
from dream import deepdream

CLASSES = ("golden retriever", "tiger", "tarantula", "starfish", "jellyfish", "daisy", "castle", "steam locomotive")


@pytest.fixture(scope="module")
def photo():
    return resize_to(read_image(ROOT / "assets" / "sample.jpg"), max_size=224)[0]


@pytest.mark.parametrize("name", CLASSES)
def test_the_class_that_was_dreamt_of_is_recognised(net, photo, name):
    """It is among the first five answers for the dream, the whole image at 224, and was not for the photograph."""
    dreamed = deepdream(net, photo, classes=[name], **CLASS_DEFAULTS | {"steps": 10, "octaves": 2})
    assert rank(net, dreamed, name) < 5 <= rank(net, photo, name)


def rank(net, image, name):
    """How many classes the network finds likelier than the one called `name`."""
    logits = np.array(net(mx.array(resize_image(image, (224, 224))[None])))[0]
    return int((logits > logits[[label.split(",")[0] for label in net.classes].index(name)]).sum())
