"""Writing videos."""

import json
from pathlib import Path

from models.dreaming.recipes import read_recipe, to_text

import av
import numpy as np
import pytest
from conftest import smooth_image
from PIL import Image
from videos import moving_frames

from dataset.cli import UserError
from dataset.images import TEXT_KEY
from dataset.video import constant_rate, read_frames, read_video
from dataset.video_writer import video_writer


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif", "webp"])
def test_every_format_shows_the_frames(here, suffix):
    shown = [smooth_image(33, 47, seed) for seed in range(4)]
    with video_writer(
        f"film.{suffix}", constant_rate(4, 25), (33, 47), quality=95, text=to_text({"options": {"zoom": 2}})
    ) as write:
        for levels in shown:
            write(levels)
    if suffix == "webp":  # which FFmpeg's reader does not know
        with Image.open("film.webp") as video:
            assert (video.n_frames, video.info["loop"]) == (4, 0)
            video.seek(3)
            video.load()
            assert video.info["duration"] == 40
            read = [np.asarray(video.convert("RGB"))]
        assert read_recipe("film.webp")["options"] == {"zoom": 2}
    else:
        video = read_video(f"film.{suffix}")
        assert video.timing == constant_rate(4, 25)
        with av.open(f"film.{suffix}") as container:
            comment = {name.lower(): value for name, value in container.metadata.items()}.get("comment")
        assert json.loads(comment) == {"program": TEXT_KEY, "options": {"zoom": 2}}
        read = list(read_frames(video))
    assert np.abs(np.float32(read[-1])[:33, :47] - shown[-1]).mean() < 8


def test_a_missing_encoder_is_told(here, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"aac"})
    with pytest.raises(UserError, match="without libx264"), video_writer("film.mp4", constant_rate(1, 25), (8, 8)):
        pass


def test_quality_changes_the_size(here):
    for quality in (10, 90):
        with video_writer(f"{quality}.mp4", constant_rate(2, 25), (64, 64), quality) as write:
            write(smooth_image(64, 64))
            write(smooth_image(64, 64, 1))
    assert Path("90.mp4").stat().st_size > 1.5 * Path("10.mp4").stat().st_size


def test_the_same_frames_have_the_same_bytes(here):
    """At sizes that are no multiple of 16, where x264's macroblock tree is decided by memory that it never wrote."""
    frames = moving_frames(6, 24, 40)
    found = set()
    for _ in range(40):
        with video_writer(Path("a.mp4"), constant_rate(6, 24), (24, 40)) as write:
            for frame in frames:
                write(frame)
        found.add(Path("a.mp4").read_bytes())
    assert len(found) == 1
