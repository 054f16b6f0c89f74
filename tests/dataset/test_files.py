"""dataset/files.py: files are written whole, under any name that a disk takes."""

import os

import pytest

from dataset.files import atomic_write, shorten


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    path = tmp_path / ("\u00e4" * 125 + "a.png")
    assert len(os.fsencode(path.name)) == 255
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("x")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("y")
        raise ZeroDivisionError
    assert [file.read_text() for file in tmp_path.iterdir()] == ["x"]


def test_long_names_are_cut_between_characters_and_stay_different():
    for stem in ("a" * 300, "\u00e4" * 200, "\U0001f40c" * 99, "x" * 240 + "\udce9" * 20):
        name = shorten(stem, "_dream.png")
        assert 250 <= len(os.fsencode(name)) <= 255 and name.endswith("_dream.png")
        assert name != shorten(stem + "b", "_dream.png")
        if "\udce9" not in stem:
            name.encode()  # no half characters
    assert shorten("photo", "_dream.png") == "photo_dream.png"
