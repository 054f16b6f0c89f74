"""Read videos: what is in a file and when its frames are shown, and the frames themselves as images.

Through PyAV, so that no ffmpeg program is needed; animated WebP, PNG and AVIF images through Pillow. A frame is an
image as everywhere: float32 H x W x 3, sRGB, 0..255, upright.
"""

import contextlib
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from dataset.cli import UserError
from dataset.container import (
    Clock,
    Decoder,
    VideoError,
    check_size,
    choose_stream,
    find_origin,
    jumping_format,
    one_line,
    open_container,
    packets,
)
from dataset.decoding import decode_frames, is_animation
from dataset.filetypes import identify
from dataset.images import SUFFIXES, over_background, resize_image, to_arrays
from dataset.video_color import HDR_NAMES, orientation_of, rotation_of, square_size, to_image

PIXEL_SHAPES = (Fraction(1, 8), 8)  # what is beyond is a damaged number
MILLISECOND = Fraction(1, 1000)
FLASH, SHOWN = 10, 100  # browsers show frames of animations that last no more than 10 ms for 100 ms


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


@dataclass(frozen=True)
class Video:
    """A video file as read_video() found it; the times in `timing` count from `begin`."""

    path: Path
    timing: Timing
    size: tuple  # height, width of an upright frame
    coded_size: tuple  # height, width of what the decoder gives
    orientation: tuple  # how that becomes upright, see video_color.orientation_of()
    pixel_shape: Fraction | None  # width / height of a pixel of an upright frame, where it is not known to be square
    begin: Fraction  # the part that is wanted, in the file's own time (set right where it jumps), seconds
    end: Fraction | None  # None: to the end of the video, and of its sound
    cut: bool  # whether there is something before `begin` that is not wanted
    sound: tuple  # the indices of the sound tracks that can be decoded
    damaged_sound: bool
    animation: bool  # whether Pillow reads it
    notes: tuple  # what the user should know, a line each

    @property
    def rotation(self):
        """Degrees, counter-clockwise, by which players would have to turn the coded frames; a multiple of 90."""
        return rotation_of(self.orientation)

    @property
    def square(self):
        """Height and width of an upright frame with square pixels."""
        return square_size(*self.size, self.pixel_shape) if self.pixel_shape else self.size


def is_video(path):
    """Tell whether a file is a video or an animation rather than an image, by what is in it.

    Where that says nothing, as of a file that is missing or broken, its suffix does.
    """
    try:
        kind, _ = identify(path)
    except OSError:
        kind = ""
    if kind == "image":
        try:
            return is_animation(path)
        except UserError:
            return False  # what is wrong with it is told when it is read
    if kind in ("video", "audio", "raw"):
        return kind != "raw"
    return Path(path).suffix.lower() not in SUFFIXES


def read_video(path, start=None, end=None, callback=None):
    """Return the Video made of the frames shown from `start` to `end` seconds (None: all).

    Every frame and every packet of sound is decoded once, so that what is wrong with them is known before hours of
    dreaming, not after. callback: called after each frame. Raises UserError where there is no video, or none of its
    frames can be decoded.
    """
    path = Path(path)
    kind, name = identify_or_nothing(path)
    if kind == "image" and name != "GIF":
        return read_animation(path, start, end, callback)
    return scan(path, start, end, callback)


def identify_or_nothing(path):
    """Return what identify() says, or nothing where the file cannot be opened, which is told later."""
    try:
        return identify(path)
    except OSError:
        return "", ""


def scan(path, start, end, callback):
    """Decode all that is wanted of a video once; returns the Video."""
    with one_line(path, "broken film"), open_container(path) as container:
        stream = choose_stream(path, container)
        origin = find_origin(path, container)
        begin, stop = origin + (start or 0), None if end is None else origin + end
        base, rates = stream.time_base, frame_rates(stream)
        shape, declared_frames = stream.sample_aspect_ratio, stream.frames
        decoder, first, times, last = Decoder(), None, [], 0
        for time, frame in decode(container, stream, begin, stop, decoder, sound=True):
            if first is None:
                check_size(path, frame.width, frame.height)
                first = frame
            if start and not times:
                begin = time * base  # where the first frame begins, so does the sound
            times.append(time - round(begin / base))
            last = frame.duration
            if callback:
                callback()
        if not times:
            if decoder.damaged[stream.index]:
                raise VideoError(path, "broken film: none of its frames can be decoded")
            raise VideoError(path, "no frames" + (" between --start and --end" if start or end is not None else ""))
        sound, notes = check_sound(path, container, decoder)
        damaged = decoder.damaged[stream.index]
        if declared_frames > len(times) + damaged and not (start or end):
            notes.append(f"{path} is cut off: {len(times)} of {declared_frames} frames are there")
    if damaged:
        notes.append(f"{path}: {count(damaged, 'damaged packet', ' of its pictures')} left out")
    incomplete = decoder.incomplete[stream.index]
    if incomplete > decoder.jumps:  # where recordings were put together, the first of each seems incomplete
        packets_are = count(incomplete - decoder.jumps, "packet", " of its pictures")
        notes.append(f"{path}: {packets_are} incomplete, and shown as far as can be")
    if first.color_trc in HDR_NAMES:
        notes.append(f"{path} is HDR ({HDR_NAMES[first.color_trc]}): it is tone-mapped to SDR")
    orientation, coded_size = orientation_of(first), (first.height, first.width)
    shape = shape if shape and shape != 1 and PIXEL_SHAPES[0] <= shape <= PIXEL_SHAPES[1] else None
    size = coded_size
    if orientation[0]:
        size, shape = size[::-1], shape and 1 / shape
    damaged_sound = any(decoder.damaged[index] for index in sound)
    timing = time_frames(times, last, base, rates)
    return Video(
        *(path, timing, size, coded_size, orientation, shape, begin, stop, bool(start), tuple(sound)),
        *(damaged_sound, False, tuple(notes)),
    )


def check_sound(path, container, decoder):
    """Return (indices of the sound tracks that can be decoded, notes on what is wrong with any)."""
    sound, notes = [], []
    for number, track in enumerate(container.streams.audio, 1):
        name = f"{path}: its sound" if len(container.streams.audio) == 1 else f"{path}: its sound track {number}"
        damaged = decoder.damaged[track.index]
        if track.codec_context is None:
            notes.append(f"{name} is left out: it is in a format that cannot be decoded")
        elif damaged and not decoder.frames[track.index]:
            notes.append(f"{name} is left out: nothing of it can be decoded")
        else:
            sound.append(track.index)
            if damaged:
                notes.append(f"{name}: {count(damaged, 'damaged packet')} left out")
    return sound, notes


def count(number, thing, of=""):
    """Return such as "1 damaged packet is" and "2 damaged packets of its pictures are"."""
    return f"{number} {thing}{of} is" if number == 1 else f"{number} {thing}s{of} are"


def frame_rates(stream):
    """Return the frame rates that the container tells, frames/s."""
    return [rate for rate in (stream.guessed_rate, stream.average_rate) if rate and 0 < rate <= 100000] or [
        Fraction(25)
    ]


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


def read_frames(video, square=False):
    """Yield the frames of a Video, float32 H x W x 3, upright; `square`: with square pixels."""
    if video.animation:
        yield from read_animation_frames(video)
        return
    size = video.square if square else None
    with one_line(video.path, "broken film"), open_container(video.path) as container:
        stream = choose_stream(video.path, container)
        frames = decode(container, stream, video.begin, video.end, Decoder())
        for _, (_, frame) in zip(video.timing.times, frames, strict=False):
            yield to_image(frame, video.coded_size, video.orientation, size)


def decode(container, stream, begin, end, decoder, sound=False):
    """Yield (time in ticks of the stream's base, frame) of the video from `begin` to `end` (None: its end) seconds.

    sound: decode the sound tracks, too, to see whether that can be done.
    """
    stream.codec_context.thread_count = 1  # with more, damaged frames would not look the same each time
    base, clock = stream.time_base, Clock(container)
    first = round(begin / base)
    if stream.start_time is not None and first > stream.start_time and not jumping_format(container):
        seek(container, first, stream)
    rate = frame_rates(stream)[0]
    time = None
    for frame in decode_stream(container, stream, clock, decoder, sound):
        tick = frame.duration or round(1 / (rate * base))
        shown = frame.pts if frame.pts is not None else first if time is None else time + tick
        if time is not None and shown <= time:
            continue  # no player can show two frames at a time
        if end is not None and shown * base >= end:
            break
        time = shown
        if time >= first:
            yield time, frame


def seek(container, time, stream=None):
    """Go to the key frame before a time, in the stream's ticks or in microseconds; stay where a file has no index."""
    with contextlib.suppress(Exception):  # then all is read from here on
        container.seek(time, stream=stream)


def decode_stream(container, stream, clock, decoder, sound):
    """Yield the frames of a stream; see decode()."""
    tracks = {track.index: track for track in (stream, *container.streams.audio)}  # for the clock all of them count
    for packet in packets(container, list(tracks.values())):
        decoder.jumps += clock.correct(packet)
        if packet.stream_index == stream.index:
            yield from decoder.decode(stream, packet)
        elif sound:
            decoder.decode(tracks[packet.stream_index], packet)
    yield from decoder.decode(stream, None)


# --- Animated images ---


def read_animation(path, start, end, callback):
    """Return the Video of an animated image; see read_video()."""
    times, notes, size, now, begin = [], [], None, 0, Fraction(0)
    start, stop = Fraction(start or 0), None if end is None else Fraction(end)
    try:
        for decoded, duration in decode_frames(path):
            size = size or decoded.color.size[::-1]
            wanted = now * MILLISECOND >= start and (stop is None or now * MILLISECOND < stop)
            if wanted:
                begin = begin if times else now * MILLISECOND
                times.append(now - round(begin / MILLISECOND))
            now += SHOWN if duration <= FLASH else round(duration)
            last = now - round(begin / MILLISECOND)
            if callback and wanted:
                callback()
    except UserError as error:
        if not times:
            raise
        notes.append(f"{error}: the {len(times)} frames before are dreamed")
    if not times:
        raise VideoError(path, "no frames" + (" between --start and --end" if start or end is not None else ""))
    rates = [Fraction(1000 * len(times), max(1, last))]
    timing = time_frames(times, last - times[-1], MILLISECOND, rates)
    return Video(
        *(path, timing, size, size, (False, False, False), None, begin, stop, bool(start), ()),
        *(False, True, tuple(notes)),
    )


def read_animation_frames(video):
    """Yield the frames of an animated image; see read_frames()."""
    now, left = Fraction(0), len(video.timing.times)
    for decoded, duration in decode_frames(video.path):
        if now >= video.begin:
            image, alpha = to_arrays(decoded)
            image = image if alpha is None else over_background(image, alpha)
            yield image if image.shape[:2] == video.size else resize_image(image, video.size)
            left -= 1
        now += (SHOWN if duration <= FLASH else round(duration)) * MILLISECOND
        if not left:
            return


def without_sound(video):
    """Return a Video with its pictures alone."""
    return replace(video, sound=())
