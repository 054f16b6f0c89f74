"""What a survey shows."""

from types import SimpleNamespace

import models
from models.dreaming.surveys import survey_cells
from models.dreaming.targets import class_text, find_class

import pytest

from dataset.cli import UsageError


def test_what_surveys_show(net):
    names = [label for label, _ in survey_cells(net, "stages")]
    assert names[0] == "conv1" and "inception4c" in names and not any("." in name for name in names)
    assert [label for label, _ in survey_cells(net, "models")] == [n for n in models.REGISTRY if models.installed(n)]
    classes = dict(survey_cells(net, "classes:Penguin"))
    assert list(classes) == ["king penguin, Aptenodytes patagonica #145"]
    assert list(classes.values()) == [{"classes": ["king penguin"]}]
    for wrong in ("inception9z", "classes:sofa of gold"):
        with pytest.raises(UsageError):
            survey_cells(net, wrong)


def test_a_class_has_a_text_that_means_it():
    names = ["crane", "crane", "tabby, tabby cat", "12", "a=b", "#3", "-x", ""]
    net = SimpleNamespace(classes=names, num_classes=len(names), path=None)
    texts = [class_text(net, i) for i in range(len(names))]
    assert texts == ["#0", "#1", "tabby", "#3", "#4", "#5", "#6", "#7"]
    assert [find_class(net, text) for text in texts] == list(range(len(names)))
