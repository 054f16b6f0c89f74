"""Write videos from 8-bit frames: H.264 in .mp4, VP9 in .webm, endless .gif and .webp, or a folder of .png files."""

import contextlib
import itertools
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

from dataset.cli import UserError
from dataset.container import VideoError, av_path, reason_of
from dataset.images import text_options, write_image
from dataset.sound import add_sound, copy_sound
from dataset.video import Timing

# libx264's macroblock tree reads memory that it never wrote: the same frames would not always have the same bytes
# suffix: video encoder, its pixels, its options at a quality of 0..100, audio encoder; None: not through PyAV
FORMATS = {
    ".mp4": ("libx264", "yuv420p", lambda q: {"crf": f"{51 - 0.44 * q:.0f}", "mbtree": "0"}, "aac"),
    ".webm": ("libvpx-vp9", "yuv420p", lambda q: {"crf": f"{63 - 0.5 * q:.0f}", "b": "0", "row-mt": "1"}, "libopus"),
    ".webp": ("libwebp_anim", "bgra", lambda q: {"quality": f"{q}"}, None),
    ".gif": None,
    "": None,  # a folder of .png
}
MUXER_OPTIONS = {
    ".mp4": {"movflags": "+faststart"},
    ".webm": {"fflags": "+bitexact"},  # no random numbers: the same video has the same bytes
    ".webp": {"loop": "0"},
}
KEEPS_ROTATION = KEEPS_PIXEL_SHAPE = {".mp4"}  # as flags beside the pixels; elsewhere the pixels themselves are changed
LARGEST = {".mp4": 16384, ".webm": 65535, ".webp": 16383, ".gif": 65535}  # pixels of a side
LONGEST = 2**27  # ticks of its own that a frame may last in a .mp4: several, that an encoder holds back, make 2^31
MP4_CLOCK = 10000  # Hz; FFmpeg doubles slower clocks there until they are as fast
# browsers show frames that last less than 2 ticks of 1/100 s in a .gif, or no more than 10 ms in a .webp, for 100 ms
GIF_TICK, GIF_LEAST, GIF_MOST = Fraction(1, 100), 2, 65535
WEBP_TICK, WEBP_LEAST = Fraction(1, 1000), 11


def has_sound(path):
    """Tell whether a video file of that name can have sound."""
    return bool((FORMATS[Path(path).suffix.lower()] or [None])[-1])


def keeps_pixel_shape(path):
    """Tell whether a video file of that name can have pixels that are not square."""
    return Path(path).suffix.lower() in KEEPS_PIXEL_SHAPE


@contextlib.contextmanager
def video_writer(path, timing, size, quality=75, text="", source=None, tell=print):
    """Yield write(levels), to be called with each frame (H x W x 3 uint8) in turn; the file is whole at the end.

    The suffix of `path` chooses H.264 in .mp4, VP9 in .webm, an endless .gif or .webp; without one it is a folder of
    .png files. size: (height, width) of the frames. text: goes into the metadata. source: a Video, whose sound,
    rotation flag and pixel shape are taken over. tell: called with a line about sound that cannot be kept.
    Encoders are opened and the header is written at once. Raises VideoError where that, or anything later, fails.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if max(size) > LARGEST.get(suffix, max(size)):
        raise UserError(f"{size[1]} x {size[0]} pixels are too many for {suffix}: take a smaller --max-size")
    if suffix == ".gif":
        writer = gif_writer(path, timing, text)
    elif not suffix:
        writer = folder_writer(path, text)
    else:
        writer = container_writer(path, timing, size, quality, text, source, tell)
    import av

    try:
        with writer as write:
            yield write
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):  # a full disk, say
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise VideoError(path, reason_of(error)) from None


@contextlib.contextmanager
def container_writer(path, timing, size, quality, text, source, tell):
    """Yield the write() of what FFmpeg encodes."""
    import av

    suffix = path.suffix.lower()
    encoder, pixels, options, audio_encoder = FORMATS[suffix]
    rotation = source.rotation if source and suffix in KEEPS_ROTATION else 0
    if encoder not in av.codecs_available:
        raise UserError(f"this PyAV came without {encoder}, which {suffix} needs: pip install --upgrade av")
    kept = None
    if suffix == ".webp" and min(np.diff([*timing.times, timing.end])) * timing.base < WEBP_LEAST * WEBP_TICK:
        timing, kept = thinned(timing, WEBP_TICK, WEBP_LEAST)
    timing = fit_ticks(timing)
    muxer = suffix.lstrip(".")
    with closing(av.open(av_path(path), "w", format=muxer, options=MUXER_OPTIONS.get(suffix, {}))) as out:
        stream = out.add_stream(encoder, rate=timing.rate, options=options(quality))
        context = stream.codec_context
        context.time_base = timing.base
        stream.time_base = timing.base
        context.pix_fmt = pixels
        if pixels == "yuv420p":  # BT.709, and tagged so: players guess the matrix of untagged videos by their size
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1
        if source and source.pixel_shape and suffix in KEEPS_PIXEL_SHAPE:
            context.sample_aspect_ratio = 1 / source.pixel_shape if rotation % 180 else source.pixel_shape
        if rotation:
            stream.set_display_rotation(rotation)
        stream.height, stream.width = coded_size(size, rotation, pixels)
        out.metadata["comment"] = text
        tracks = add_sound(source, out, audio_encoder, tell) if source and source.sound and audio_encoder else {}
        out.start_encoding()
        sound = copy_sound(source, tracks, out) if tracks else iter(())
        write, finish = frame_encoder(out, stream, timing, rotation, pixels, sound, kept, tell)
        yield write
        finish()
    if suffix == ".webp":
        add_exif(path, text_options(path, text)["exif"])


@contextlib.contextmanager
def closing(container):
    """Close an output container at the end, which may raise; after an error, without raising another."""
    try:
        yield container
    except BaseException:
        with contextlib.suppress(Exception):
            container.close()
        raise
    container.close()


def coded_size(size, rotation, pixels):
    """Return (height, width) of what is encoded of upright frames of `size`."""
    height, width = size[::-1] if rotation % 180 else size
    return (height + height % 2, width + width % 2) if pixels == "yuv420p" else (height, width)


def frame_encoder(out, stream, timing, rotation, pixels, sound, kept, tell):
    """Return (write(levels), finish()) that encode frames into a container, and sound up to where they are.

    sound: copy_sound()'s generator. kept: the numbers of the frames that are not left out; None: all.
    """
    import av

    durations = dict(zip(timing.times, np.diff([*timing.times, timing.end]).tolist(), strict=True))
    times, numbers = iter(timing.times), itertools.count()
    heard = 0  # up to which second the sound is in the file

    def mux(packets):
        for packet in packets:
            packet.duration = durations.get(packet.pts, 0)  # the encoder does not know how long the last one is
            packet.time_base = timing.base
            out.mux(packet)

    def mux_sound(until):
        nonlocal heard
        while heard <= until:
            try:
                heard = next(sound, np.inf)
            except OSError:
                raise
            except Exception as error:  # the pictures go on, whatever a decoder or encoder of sound may raise
                tell(f"the rest of the sound is left out: {reason_of(error)}")
                heard = np.inf

    def write(levels):
        if kept is not None and next(numbers) not in kept:
            return
        time = next(times)
        levels = np.rot90(levels, -rotation // 90)
        if pixels == "yuv420p":  # which has no odd sizes
            levels = np.pad(levels, [(0, side % 2) for side in levels.shape[:2]] + [(0, 0)], "edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), "rgb24")
        if pixels == "yuv420p":
            frame = frame.reformat(format=pixels, dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = time, timing.base
        mux_sound(time * timing.base)
        mux(stream.encode(frame))

    def finish():
        mux(stream.encode())
        mux_sound(np.finfo(float).max)

    return write, finish


def fit_ticks(timing):
    """Return a Timing in which no frame lasts longer than containers can say: in milliseconds if need be."""
    gaps = np.diff([*timing.times, timing.end]).tolist()
    if max(gaps, default=0) * mp4_ticks(timing.base) <= LONGEST:
        return timing
    longest = LONGEST // mp4_ticks(WEBP_TICK)
    moments = [round(time * timing.base / WEBP_TICK) for time in [*timing.times, timing.end]]
    for i in range(1, len(moments)):
        moments[i] = min(max(moments[i], moments[i - 1] + 1), moments[i - 1] + longest)
    return Timing(moments[:-1], moments[-1], WEBP_TICK, max(timing.rate, Fraction(1)))  # which encoders take, too


def mp4_ticks(base):
    """Return how many ticks of a .mp4 one of `base` seconds lasts."""
    clock = base.denominator
    while clock < MP4_CLOCK:
        clock *= 2
    return base * clock


def thinned(timing, tick, least, most=None):
    """Return (Timing in ticks of `tick` seconds, numbers of the frames in it): none lasts less than `least` ticks.

    Where more come, some are left out: those that could be shown only more than half of `least` late.
    most: ticks that a frame lasts at most.
    """
    moments, kept = [], []
    for n, time in enumerate(timing.times):
        exact = time * timing.base / tick
        moment = max(round(exact), moments[-1] + least) if moments else round(exact)
        if not moments or moment - exact <= least / 2:
            moments.append(moment)
            kept.append(n)
    end = max(round(timing.end * timing.base / tick), moments[-1] + least)
    if most:
        for i, gap in enumerate(np.diff([*moments, end]).tolist()):
            if gap > most:
                moments[i + 1 :] = [moment - (gap - most) for moment in moments[i + 1 :]]
                end -= gap - most
    return Timing(moments, end, tick, timing.rate), set(kept)


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

    # moments are rounded, not durations, so that nothing adds up
    timing, kept = thinned(timing, GIF_TICK, GIF_LEAST, GIF_MOST)
    images, numbers = [], itertools.count()

    def write(levels):
        if next(numbers) in kept:
            images.append(Image.fromarray(levels).quantize(256, Image.Quantize.MEDIANCUT))

    yield write
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=[10 * ticks for ticks in np.diff([*timing.times, timing.end]).tolist()][: len(images)],
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
