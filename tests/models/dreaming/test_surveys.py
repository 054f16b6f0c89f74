"""What a survey shows."""

import models
from models.dreaming.surveys import survey_cells

import pytest

from dataset.cli import UsageError


def test_what_surveys_show(net):
    names = [label for label, _ in survey_cells(net, "stages")]
    assert names[0] == "conv1" and "inception4c" in names and not any("." in name for name in names)
    assert [label for label, _ in survey_cells(net, "models")] == [n for n in models.REGISTRY if models.installed(n)]
    with pytest.raises(UsageError):
        survey_cells(net, "inception9z")
