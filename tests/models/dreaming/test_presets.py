"""Looks by name."""

import models
from models.dreaming.presets import PRESETS, preset

import pytest

import dream
from dataset.cli import UsageError


@pytest.mark.parametrize("model", models.REGISTRY)
def test_presets_name_layers_that_there_are(model):
    net = models.entry(model).build(models.entry(model).num_classes)
    names = vars(dream.build_parser().parse_args([]))
    for name in PRESETS:
        options = preset(name, model)
        assert options.keys() <= names.keys() and all(net.resolve(layer) for layer in options["layers"])


def test_a_misspelt_preset():
    with pytest.raises(UsageError, match="did you mean dogslugs"):
        preset("dogslug", "googlenet")
