"""Read and write videos through PyAV: no ffmpeg program is needed.

A frame is an image as everywhere: float32 H x W x 3, sRGB, 0..255, upright. Videos are written from 8-bit frames.
"""

import contextlib
import itertools
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from dataset.cli import UserError
from dataset.images import text_options, write_image

# suffix: video encoder, its pixels, its options at a quality of 0..100, audio encoder; None: not through PyAV
FORMATS = {
    ".mp4": ("libx264", "yuv420p", lambda q: {"crf": f"{51 - 0.44 * q:.0f}"}, "aac"),
    ".webm": ("libvpx-vp9", "yuv420p", lambda q: {"crf": f"{63 - 0.5 * q:.0f}", "b": "0", "row-mt": "1"}, "libopus"),
    ".webp": ("libwebp_anim", "bgra", lambda q: {"quality": f"{q}"}, None),
    ".gif": None,
    "": None,  # a folder of .png
}
MUXER_OPTIONS = {".mp4": {"movflags": "+faststart"}, ".webp": {"loop": "0"}}
UNNAMED_LAYOUTS = {"1 channels": "mono", "2 channels": "stereo", "6 channels": "5.1", "8 channels": "7.1"}
KEEPS_ROTATION = {".mp4"}  # as a flag beside the pixels; elsewhere the pixels themselves are turned


@dataclass(frozen=True)
class Timing:
    """When frames are shown: the times of all, and of the end of the last, in units of `base` seconds."""

    times: list
    end: int
    base: Fraction
    rate: Fraction  # frames/s


def constant_rate(frames, rate):
    """Return the Timing of `frames` frames at a constant rate, in frames/s."""
    return Timing(list(range(frames)), frames, 1 / Fraction(rate), Fraction(rate))


# --- Reading ---


@dataclass(frozen=True)
class Video:
    """A video file as read_video() found it; the times in `timing` count from `begin`."""

    path: Path
    timing: Timing
    size: tuple  # height, width of an upright frame
    rotation: int  # degrees, counter-clockwise, by which players turn the frames; a multiple of 90
    pixel_shape: Fraction | None  # width / height of a pixel, where it is not known to be square
    begin: Fraction  # the part that is wanted, in the file's own time, seconds
    end: Fraction | None  # None: to the end of the video, and of its sound
    cut: bool  # whether there is something before `begin` that is not wanted
    sound: bool
    declared_frames: int  # the number of frames that the file says it has, 0 where it does not say


def read_video(path, start=None, end=None, callback=None):
    """Return the Video made of the frames shown from `start` to `end` seconds (None: all).

    Every frame is decoded once, so that a broken file is noticed before hours of dreaming, not after.
    callback: called after each frame. Raises UserError where there is no video, or it is broken.
    """
    import av

    path = Path(path)
    with open_container(path) as container:
        stream = container.streams.video[0]
        origin = min((s.start_time * s.time_base for s in container.streams if s.start_time is not None), default=0)
        begin = Fraction(origin) + (start or 0)
        stop = None if end is None else Fraction(origin) + end
        base, rates = stream.time_base, [r for r in (stream.guessed_rate, stream.average_rate) if r] or [Fraction(25)]
        shape = stream.sample_aspect_ratio
        sound, declared_frames = bool(container.streams.audio), stream.frames
    first, times, last = None, [], 0
    try:
        for time, frame in decode(path, begin, stop):
            first = first or frame
            if start and not times:
                begin = time * base  # where the first frame begins, so does the sound
            times.append(time - round(begin / base))
            last = frame.duration
            if callback:
                callback()
    except av.error.FFmpegError as error:
        where = f"{float(times[-1] * base):.2f} s" if times else "its beginning"
        raise UserError(f"{path}: broken film: {error.strerror} after {where}") from None
    if not times:
        raise UserError(f"{path}: no frames" + (" between --start and --end" if start or end else ""))
    rotation = first.rotation if first.rotation % 90 == 0 else 0
    size = (first.width, first.height) if rotation % 180 else (first.height, first.width)
    pixel_shape = shape if shape and shape != 1 else None
    timing, cut = time_frames(times, last, base, rates), bool(start)
    return Video(path, timing, size, rotation, pixel_shape, begin, stop, cut, sound, declared_frames)


def time_frames(times, last, base, rates):
    """Return the Timing of frames shown at `times`, the last for `last` ticks of `base` seconds (0: unknown).

    rates: what the container says. Times that are those of a constant rate but for their rounding (to milliseconds in
    Matroska, say) become exactly that; others are kept.
    """
    for rate in rates:
        tick = 1 / (rate * base)
        if times[0] == 0 and len(times) > 1 and all(abs(time - i * tick) <= 1 for i, time in enumerate(times)):
            return constant_rate(len(times), rate)
    last = last or (times[-1] - times[-2] if len(times) > 1 else round(1 / (rates[0] * base)))
    return Timing(times, times[-1] + max(1, last), base, rates[-1])


def read_frames(video):
    """Yield the video's frames, float32 H x W x 3, upright."""
    height, width = video.size[::-1] if video.rotation % 180 else video.size
    for _, frame in decode(video.path, video.begin, video.end):
        levels = frame.to_ndarray(format="rgb24", width=width, height=height)
        yield np.rot90(levels, video.rotation // 90).astype(np.float32)


def decode(path, begin, end):
    """Yield (time in ticks of the stream's base, frame) of the video from `begin` to `end` (None: its end) seconds."""
    with open_container(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        base = stream.time_base
        first = round(begin / base)
        if stream.start_time is not None and first > stream.start_time:
            container.seek(first, stream=stream)  # to the key frame before
        time = None
        for frame in container.decode(stream):
            tick = frame.duration or round(1 / ((stream.guessed_rate or 25) * base))
            before = time
            time = frame.pts if frame.pts is not None else first if before is None else before + tick
            if before is not None and time <= before:
                continue  # no player can show two frames at a time
            if end is not None and time * base >= end:
                break
            if time >= first:
                yield time, frame


@contextlib.contextmanager
def open_container(path):
    """Yield the opened PyAV container of a video file. Raises UserError where there is none with pictures in it."""
    import av

    try:
        container = av.open(str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a film") from None
    except (av.error.FFmpegError, ValueError) as error:
        raise UserError(f"{path}: neither a picture nor a film that can be read: {error.strerror}") from None
    with container:
        if not container.streams.video:
            raise UserError(f"{path}: there are no pictures in it")
        yield container


# --- Writing ---


@contextlib.contextmanager
def video_writer(path, timing, quality=75, text="", source=None):
    """Yield write(levels), to be called with each frame (H x W x 3 uint8) in turn; the file is whole at the end.

    The suffix of `path` chooses H.264 in .mp4, VP9 in .webm, an endless .gif or .webp; without one it is a folder of
    .png files. text: goes into the metadata. source: a Video, whose sound, rotation flag and
    pixel shape are taken over.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".gif":
        writer = gif_writer(path, timing, text)
    elif not suffix:
        writer = folder_writer(path, text)
    else:
        writer = container_writer(path, timing, quality, text, source)
    with writer as write:
        yield write


def has_sound(path):
    """Tell whether a video file of that name can have sound."""
    return bool((FORMATS[Path(path).suffix.lower()] or [None])[-1])


@contextlib.contextmanager
def container_writer(path, timing, quality, text, source):
    """Yield the write() of what FFmpeg encodes."""
    import av

    suffix = path.suffix.lower()
    encoder, pixels, options, audio_encoder = FORMATS[suffix]
    rotation = source.rotation if source and suffix in KEEPS_ROTATION else 0
    with av.open(str(path), "w", options=MUXER_OPTIONS.get(suffix, {})) as out:
        if encoder not in av.codecs_available:
            raise UserError(f"this PyAV came without {encoder}, which {suffix} needs: pip install --upgrade av")
        stream = out.add_stream(encoder, rate=timing.rate, options=options(quality))
        context = stream.codec_context
        context.time_base = timing.base
        stream.time_base = timing.base
        context.pix_fmt = pixels
        if pixels == "yuv420p":  # BT.709, and tagged so: players guess the matrix of untagged films by their size
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1
        if source and source.pixel_shape:
            context.sample_aspect_ratio = source.pixel_shape
        if rotation:
            stream.set_display_rotation(rotation)
        out.metadata["comment"] = text
        sound = copy_sound(source, out, audio_encoder) if source and source.sound and audio_encoder else iter(())
        heard = next(sound, np.inf)  # up to which second the sound is in the file

        durations = dict(zip(timing.times, np.diff([*timing.times, timing.end]).tolist(), strict=True))
        times = iter(timing.times)

        def mux(packets):
            for packet in packets:
                packet.duration = durations.get(packet.pts, 0)  # the encoder does not know how long the last one is
                packet.time_base = timing.base
                out.mux(packet)

        def mux_sound(until):
            nonlocal heard
            while heard <= until:
                heard = next(sound, np.inf)

        def write(levels):
            time = next(times)
            levels = np.rot90(levels, -rotation // 90)
            if pixels == "yuv420p":  # which has no odd sizes
                levels = np.pad(levels, [(0, side % 2) for side in levels.shape[:2]] + [(0, 0)], "edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), "rgb24")
            if pixels == "yuv420p":
                frame = frame.reformat(format=pixels, dst_colorspace="ITU709", dst_color_range="MPEG")
            if time == timing.times[0]:
                stream.width, stream.height = frame.width, frame.height
            frame.pts, frame.time_base = time, timing.base
            mux_sound(time * timing.base)
            mux(stream.encode(frame))

        yield write
        mux(stream.encode())
        mux_sound(np.finfo(float).max)
    if suffix == ".webp":
        add_exif(path, text_options(path, text)["exif"])


def add_exif(path, exif):
    """Put EXIF into an animated .webp: FFmpeg writes no metadata there.

    Source: the WebP container specification (RIFF chunks; the fourth bit of VP8X's first byte tells of EXIF).
    """
    exif = exif.removeprefix(b"Exif\0\0")
    data = bytearray(path.read_bytes())
    if data[12:16] == b"VP8X":
        data[20] |= 0x08
        data += b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2)
        data[4:8] = struct.pack("<I", len(data) - 8)
        path.write_bytes(data)


@contextlib.contextmanager
def gif_writer(path, timing, text):
    """Yield the write() of an endless .gif."""
    from PIL import Image

    images = []

    def write(levels):
        images.append(Image.fromarray(levels).quantize(256, Image.Quantize.MEDIANCUT))

    yield write
    # GIF counts in hundredths of a second: round the moments, not the durations, so that nothing adds up
    moments = np.rint([float(time * timing.base * 100) for time in [*timing.times, timing.end]])
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=(np.diff(moments) * 10).astype(int).tolist(),
        loop=0,
        comment=text.encode(),
    )


@contextlib.contextmanager
def folder_writer(path, text):
    """Yield the write() of a folder of .png files."""
    path.mkdir()
    numbers = itertools.count()

    def write(levels):
        png = path / f"{next(numbers):06}.png"
        write_image(png, levels, **text_options(png, text))

    yield write


def copy_sound(video, out, encoder):
    """Put the sound of `video` into the container `out` and yield, packet by packet, the second reached.

    Packets are copied as they are where the container takes their codec, otherwise decoded and encoded anew.
    """
    import av

    with open_container(video.path) as source:
        tracks = {}
        for stream in source.streams.audio:
            codec = stream.codec_context.codec.canonical_name
            # .mp4 takes raw samples, too, but few players play them
            if codec in out.supported_codecs and not codec.startswith("pcm"):
                tracks[stream.index] = out.add_stream_from_template(stream), False
            else:
                rate = 48000 if encoder == "libopus" else stream.codec_context.sample_rate
                layout = stream.codec_context.layout
                layout = UNNAMED_LAYOUTS.get(layout.name, layout.name)
                tracks[stream.index] = out.add_stream(encoder, rate=rate, layout=layout), True
        yield 0
        if video.cut:
            source.seek(int(video.begin * av.time_base))
        for packet in source.demux(source.streams.audio):
            time = None if packet.pts is None else packet.pts * packet.time_base
            if time is None or (video.cut and time < video.begin) or (video.end is not None and time >= video.end):
                continue
            track, encoded = tracks[packet.stream_index]
            if not encoded:
                packet.pts -= round(video.begin / packet.time_base)
                packet.dts = packet.pts  # sound is shown in the order of its packets
                packet.stream = track
                out.mux(packet)
            else:
                for frame in packet.decode():
                    frame.pts -= round(video.begin / frame.time_base)
                    out.mux(track.encode(frame))
            yield time - video.begin
        for track, encoded in tracks.values():
            if encoded:
                out.mux(track.encode())
