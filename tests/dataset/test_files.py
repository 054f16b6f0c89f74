"""Files known by more than their names, and errors of memory in one line."""

import os

import pytest

from dataset import cli
from dataset.files import same_file


def test_a_file_of_two_names_is_one(tmp_path):
    """As Photo.jpg and photo.jpg are on a Mac; here a link stands for that."""
    photo, other = tmp_path / "photo.jpg", tmp_path / "Photo.jpg"
    photo.write_bytes(b"1")
    assert same_file(photo, tmp_path / "." / "photo.jpg")
    assert same_file(tmp_path / "new.jpg", tmp_path / "." / "new.jpg")
    assert not same_file(photo, tmp_path / "new.jpg")
    os.link(photo, other)
    assert same_file(photo, other)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[malloc] Unable to allocate 8 bytes."),
        RuntimeError("[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum"),
        RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPU)"),
        RuntimeError("cudaMallocAsync failed: out of memory"),
    ],
)
def test_too_little_memory_is_one_line(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 1
    assert "--max-size" in capsys.readouterr().err


def test_other_runtime_errors_are_not_hidden():
    def main():
        raise RuntimeError("a programming error")

    with pytest.raises(RuntimeError):
        cli.run(main)
