"""prove.py mutations films: whatever a damaged video holds, reading and writing it gives a video or one line."""

import contextlib
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from dataset.cli import UserError
from dataset.video import read_frames, read_video
from dataset.video_writer import keeps_pixel_shape, video_writer

FRAMES, RATE, HEIGHT, WIDTH = 6, 25, 32, 48
# file name: video encoder, its pixels, audio encoder
CONTAINERS = {
    "a.mp4": ("libx264", "yuv420p", "aac"),
    "b.webm": ("libvpx-vp9", "yuv420p", "libopus"),
    "c.mkv": ("libx264", "yuv420p", "pcm_s16le"),
    "d.avi": ("mjpeg", "yuvj420p", "pcm_s16le"),
    "e.ts": ("libx264", "yuv420p", "aac"),
    "f.mov": ("png", "rgba", "pcm_s16le"),
    "g.flv": ("flv", "yuv420p", "aac"),
    "h.mpg": ("mpeg2video", "yuv420p", "mp2"),
    "i.mp4": ("mpeg4", "yuv420p", "aac"),
}
TARGETS = ("film.mp4", "film.webm", "film.gif", "film.webp", "film")


def samples():
    """Return {name: bytes} of short videos in several containers, with sound, and of animated images."""
    rng = np.random.default_rng(0)
    world = Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8)).resize((80, 64), Image.Resampling.BICUBIC)
    frames = [world.crop((2 * n, n, 2 * n + WIDTH, n + HEIGHT)) for n in range(FRAMES)]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, codecs in CONTAINERS.items():
            path = Path(folder, name)
            write_sample(path, frames, *codecs)
            found[name] = path.read_bytes()
        for name in ("j.gif", "k.webp", "l.png"):
            path = Path(folder, name)
            frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, loop=0)
            found[name] = path.read_bytes()
    return found


def write_sample(path, frames, encoder, pixels, audio_encoder):
    """Write one video with a tone."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(encoder, rate=RATE)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, pixels
        audio = out.add_stream(audio_encoder, rate=48000 if path.suffix != ".flv" else 44100, layout="mono")
        for n, frame in enumerate(frames):
            frame = av.VideoFrame.from_image(frame)
            frame.pts, frame.time_base = n, Fraction(1, RATE)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        tone = np.int16(9000 * np.sin(np.arange(audio.rate * FRAMES // RATE) / 20))[None]
        samples = av.AudioFrame.from_ndarray(tone, "s16", "mono")
        samples.sample_rate, samples.pts, samples.time_base = audio.rate, 0, Fraction(1, audio.rate)
        out.mux(audio.encode(samples))
        out.mux(audio.encode())


def attempt(path):
    """Read a file and write its first frames anew; returns "a video" or "one line"."""
    try:
        video = read_video(path)
        copied = copy(video, TARGETS[Path(path).stat().st_size % len(TARGETS)])
    except UserError as error:
        line = " ".join(str(error).split())
        assert str(path) in line and len(line) > len(f"{path}: "), line
        return "one line"
    assert copied, "no frame a second time"
    return "a video"


def copy(video, target):
    """Write a video with all its frames and its sound; returns how many there are."""
    square, notes, write, count = not keeps_pixel_shape(target), [], None, 0
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for image in read_frames(video, square):
            assert image.shape[2] == 3 and np.isfinite(image).all() and image.min() >= 0 and image.max() <= 256
            if write is None:
                size = image.shape[:2]
                writer = video_writer(Path(folder, target), video.timing, size, source=video, tell=notes.append)
                write = stack.enter_context(writer)
            write(np.rint(image).clip(0, 255).astype(np.uint8))
            count += 1
    return count
