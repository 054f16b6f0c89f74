"""Films to frames and back, through PyAV: no ffmpeg program is needed.

A frame is an image as everywhere: float32 H x W x 3, sRGB, 0..255, upright. Films are written from 8-bit frames.
"""

import contextlib
import itertools
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from dataset.images import write_image

# suffix: video encoder, its options at a quality of 0..100, audio encoder; None: not through PyAV
FORMATS = {
    ".mp4": ("libx264", lambda quality: {"crf": f"{51 - 0.44 * quality:.0f}"}, "aac"),
    ".webm": ("libvpx-vp9", lambda quality: {"crf": f"{63 - 0.5 * quality:.0f}", "b": "0", "row-mt": "1"}, "libopus"),
    ".webp": ("libwebp_anim", lambda quality: {"quality": f"{quality}"}, None),
    ".gif": None,
    "": None,  # a folder of .png
}
KEEPS_ROTATION = {".mp4"}  # as a flag beside the pixels; elsewhere the pixels themselves are turned


@dataclass(frozen=True)
class Timing:
    """When frames are shown: `times` in units of `base` seconds, and the end of the last one. rate: frames/s."""

    times: list
    end: int
    base: Fraction
    rate: Fraction


def steady(frames, rate):
    """The timing of `frames` frames at a constant rate."""
    return Timing(list(range(frames)), frames, 1 / Fraction(rate), Fraction(rate))


@contextlib.contextmanager
def film_writer(path, timing, quality=75, recipe=None, source=None):
    """Yields write(levels), to be called with each frame (H x W x 3 uint8) in turn; the film is whole at the end.

    The suffix of `path` chooses H.264 in .mp4, VP9 in .webm, an endless .gif or .webp; without one it is a folder of
    .png files. recipe: a dict for the container's metadata. source: a Film, whose sound, rotation flag and pixel
    shape are taken over.
    """
    path = Path(path)
    comment = json.dumps(recipe) if recipe else ""
    suffix = path.suffix.lower()
    if suffix == ".gif":
        writer = gif_writer(path, timing, comment)
    elif not suffix:
        writer = folder_writer(path, comment)
    else:
        writer = container_writer(path, timing, quality, comment, source)
    with writer as write:
        yield write


@contextlib.contextmanager
def container_writer(path, timing, quality, comment, source):
    import av

    suffix = path.suffix.lower()
    encoder, options, audio_encoder = FORMATS[suffix]
    rotation = source.rotation if source and suffix in KEEPS_ROTATION else 0
    muxer = {".mp4": {"movflags": "+faststart"}, ".webp": {"loop": "0"}}.get(suffix, {})
    with av.open(str(path), "w", options=muxer) as out:
        stream = out.add_stream(encoder, rate=timing.rate, options=options(quality))
        context = stream.codec_context
        context.time_base = timing.base
        stream.time_base = timing.base
        context.pix_fmt = "yuv420p"
        # tagged, since players guess the matrix of untagged films by their size
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1
        if source and source.pixel_shape:
            context.sample_aspect_ratio = source.pixel_shape
        if rotation:
            stream.set_display_rotation(rotation)
        if comment:
            out.metadata["comment"] = comment
        sound = Sound(source, out, audio_encoder) if source and audio_encoder else None

        durations = dict(zip(timing.times, np.diff([*timing.times, timing.end]).tolist(), strict=True))
        times = iter(timing.times)

        def mux(packets):
            for packet in packets:
                packet.duration = durations.get(packet.pts, 0)  # the encoder does not know how long the last one is
                packet.time_base = timing.base
                out.mux(packet)

        def write(levels):
            time = next(times)
            levels = np.rot90(levels, -rotation // 90)
            height, width = levels.shape[:2]
            if time == timing.times[0]:
                stream.width, stream.height = width + width % 2, height + height % 2
            levels = np.pad(levels, ((0, height % 2), (0, width % 2), (0, 0)), "edge")  # 4:2:0 has no odd sizes
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), "rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = time, timing.base
            if sound:
                sound.write_until(time * timing.base)
            mux(stream.encode(frame))

        yield write
        mux(stream.encode())
        if sound:
            sound.write_until(timing.end * timing.base)
            sound.close()


@contextlib.contextmanager
def gif_writer(path, timing, comment):
    from PIL import Image

    pictures = []

    def write(levels):
        pictures.append(Image.fromarray(levels).quantize(256, Image.Quantize.FASTOCTREE))

    yield write
    # GIF counts in hundredths of a second: round the moments, not the durations, so that nothing adds up
    moments = np.rint([float(time * timing.base * 100) for time in [*timing.times, timing.end]])
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=(np.diff(moments) * 10).astype(int).tolist(),
        loop=0,
        comment=comment.encode(),
    )


@contextlib.contextmanager
def folder_writer(path, comment):
    from PIL import PngImagePlugin

    path.mkdir()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Comment", comment)
    numbers = itertools.count()
    yield lambda levels: write_image(path / f"{next(numbers):06}.png", levels, pnginfo=info)
