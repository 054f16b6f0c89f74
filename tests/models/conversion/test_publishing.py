"""The model card of convert.py --publish, and the README: the front matter that the Hugging Face hub reads."""

from models import weights_file
from models.conversion import publishing

import numpy as np
import pytest
from conftest import ROOT
from huggingface_hub import ModelCard

MODELS = ("googlenet", "vgg16")


def write(path, model, origin):
    """Write a weights file that none can dream with, and return its path."""
    weights_file.write(path, {"a": np.ones(3)}, weights_file.Metadata(model, 3, origin=origin))
    return path


@pytest.mark.parametrize(
    ("origins", "license"),
    [
        (("mine; MIT", "MIT; https://example.com/a.pth"), "mit"),
        (("trained for this project; Apache-2.0",), "apache-2.0"),
        (("BSD-3-Clause, without the classifier; pip:a",), "bsd-3-clause"),
        (("mine; MIT", "BSD-3-Clause"), "other"),
        (("mine; MIT", None), "other"),
        (("permitted by no MIT licence",), "other"),
    ],
)
def test_the_card_begins_with_what_the_hub_reads(tmp_path, origins, license):
    """The hub refuses a licence it does not know, and `other` without a name."""
    models = MODELS[: len(origins)]
    paths = [write(tmp_path / f"{model}.npz", model, text) for model, text in zip(models, origins, strict=True)]
    data = ModelCard(publishing.card("me/dreams", paths)).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("mlx", "image-to-image", license)
    assert bool(data.license_name) == bool(data.license_link) == (license == "other")
    assert data.thumbnail == "https://huggingface.co/me/dreams/resolve/main/assets/deepdream_header.jpg"
    assert data.tags[-len(paths) :] == list(models) and "deepdream" in data.tags


def test_the_readme_begins_with_what_the_hub_reads():
    """As it is the page of the hub's repository that holds the program."""
    data = ModelCard((ROOT / "README.md").read_text(encoding="utf-8")).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("mlx", "image-to-image", "apache-2.0")
    assert data.thumbnail.startswith("https://") and (ROOT / data.thumbnail.split("/resolve/main/")[1]).is_file()
