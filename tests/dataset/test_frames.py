"""dataset/frames.py: what a run of dream_video.py keeps, and what it takes for its own."""

import pytest

from dataset import frames
from dataset.cli import UserError


def test_a_video_begun_on_a_full_disk_begins_again(tmp_path, monkeypatch):
    folder = tmp_path / "zoom.mp4.frames"

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(frames.json, "dumps", full)
        with pytest.raises(OSError), frames.resume_frames(folder, {}):
            pass
    assert [path.name for path in folder.iterdir()] == ["lock"]
    (folder / frames.temporary_path(folder / "options.json")).touch()  # killed while it wrote that
    with frames.resume_frames(folder, {"steps": 1}) as (finished, state):
        assert (finished, state) == (0, {})
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "options.json"]


@pytest.mark.parametrize("name, text", [("lock", "mine"), ("film.mp4", ""), (".part", "")])
def test_a_folder_of_other_files_is_left_alone(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="was not made by"), frames.resume_frames(tmp_path, {}):
        pass
    assert (tmp_path / name).read_text() == text


def test_a_long_value_is_told_in_short(tmp_path):
    with frames.resume_frames(tmp_path / "f", {"pan": [0] * 9999, "x" * 9999: 1}):
        pass
    with pytest.raises(UserError, match="pan: .*, now ") as told, frames.resume_frames(tmp_path / "f", {"pan": 1}):
        pass
    assert len(str(told.value)) < 1500
