"""models/training/run.py: what a resumed run must have in common with its checkpoint."""

from models.training.run import check_same

import pytest

from dataset.cli import UsageError

SETTINGS = {"lr": 0.1, "pictures": 2789330644}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"classes": ["a", "b"]}, r"begun with 2 classes, now there are 3 \(new: c\)"),
        ({"classes": ["a", "b", "c", "d", "e"]}, r"begun with 5 classes, now there are 3 \(gone: d, e\)"),
        ({"classes": ["a", "b", "x"]}, r"begun with 3 classes, now there are 3 \(new: c; gone: x\)"),
        ({"settings": {**SETTINGS, "pictures": 2725970496}}, "the pictures in set are not those"),
        ({"settings": {**SETTINGS, "lr": 0.2}}, "another lr: 0.2, not 0.1"),
    ],
)
def test_what_has_changed_is_told_in_words(stored, message):
    stored = {"settings": SETTINGS, **stored}
    with pytest.raises(UsageError, match=message) as caught:
        check_same("set", stored, SETTINGS, ["a", "b", "c"])
    assert "2725970496" not in str(caught.value)


def test_a_checkpoint_that_names_no_classes_is_resumed():
    check_same("set", {"settings": SETTINGS}, SETTINGS, ["a", "b"])
