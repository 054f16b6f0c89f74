"""dataset/files.py: files are written whole, under any name that a disk takes."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, run

from dataset import cli
from dataset.files import atomic_write, same_file, shorten


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


def test_what_a_killed_process_left_is_written_over_and_what_another_writes_is_not(tmp_path):
    path, other = tmp_path / "a.png", tmp_path / "other.png"
    killed = "import sys; from dataset.files import atomic_write\n"
    killed += "with atomic_write(sys.argv[1]) as t: t.write_text('x' * 99); import os; os._exit(9)"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", killed, path], cwd=ROOT)
        assert len(list(tmp_path.iterdir())) == 1
    with atomic_write(path) as one, atomic_write(path) as two, atomic_write(other) as three:
        assert one.read_text() == "" and len({one, two, three}) == 3
        one.write_text("1")
        two.write_text("2")
        three.write_text("3")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a.png": "1", "other.png": "3"}


def test_what_was_killed_beside_another_writer_is_removed_and_what_is_being_written_is_not(tmp_path):
    path = tmp_path / "a.npz"
    with atomic_write(path) as one, atomic_write(path) as two, atomic_write(path) as three:
        pass
    two.write_text("killed")
    with atomic_write(path) as first, atomic_write(path) as again:
        assert (first, again) == (one, two)  # which is not new
        three.write_text("killed")
    assert list(tmp_path.iterdir()) == [path]
    with atomic_write(path) as first:
        with atomic_write(path):
            pass
        assert first.exists()


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with atomic_write(tmp_path / "a.png") as temporary:
        pass
    temporary.symlink_to(victim)
    with atomic_write(tmp_path / "a.png") as other:
        other.write_text("x")
    assert victim.read_text() == "precious" and (tmp_path / "a.png").read_text() == "x"


def test_long_names_are_cut_between_characters_and_stay_different():
    for stem in ("a" * 300, "\u00e4" * 200, "\U0001f40c" * 99, "x" * 240 + "\udce9" * 20):
        name = shorten(stem, "_dream.png")
        assert 250 <= len(os.fsencode(name)) <= 255 and name.endswith("_dream.png")
        assert name != shorten(stem + "b", "_dream.png")
        if "\udce9" not in stem:
            name.encode()  # no half characters
    assert shorten("photo", "_dream.png") == "photo_dream.png"


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


@pytest.mark.parametrize(
    "words",
    [
        ("dream.py", "a.png"),
        ("dream.py", "--recipe", "a.png"),
        ("dream.py", "photo.png", "--weights", "a.png"),
        ("dream_video.py", "a.png", "-o", "out.gif"),
        ("dream_video.py", "photo.png", "--schedule", "a.png", "-o", "out.gif"),
        ("convert.py", "a.png", "-o", "out.npz"),
        ("convert.py", "--info", "a.png"),
        ("calc_cm.py", "a.png"),
    ],
)
def test_a_pipe_is_told_and_not_waited_for(photo, words):
    os.mkfifo(photo.with_name("a.png"))
    done = run(*words, cwd=photo.parent, timeout=20)
    assert done.status in (1, 2) and "a.png: is a pipe, not a file" in done.err, done.err
    assert "Traceback" not in done.err


def test_what_cannot_be_replaced_is_told_by_its_own_name(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / "out") as temporary:
        temporary.write_text("x")
    assert cli.error_text(caught.value) == f"{tmp_path / 'out'}: Is a directory"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
