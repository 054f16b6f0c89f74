"""Open video files and read their packets and frames, whatever is wrong with them.

Every call of a foreign demuxer or decoder is in here: what it raises becomes one line with the file's name, or, in the
middle of a video, a damaged packet that is skipped and counted. Clocks that jump, as they do where recordings were put
together, are set right.
"""

import collections
import contextlib
import ctypes
import itertools
from fractions import Fraction

from dataset.cli import UserError
from dataset.filetypes import identify

MAX_PIXELS = 120_000_000  # of a frame: 2 GB as it is decoded, as RGB and as floats; larger ones are not decoded
RETRIES = 20  # of the demuxer, one after another without a packet, before a damaged file counts as over
JUMPING, ATTACHED_PICTURE, TIMED_THUMBNAILS = 0x200, 0x400, 0x800  # FFmpeg's flags of formats and of streams
BACK = Fraction(1, 10)  # seconds by which a clock may go back without having jumped
AHEAD = {True: 10, False: 30 * 3600}  # or forward, in formats that jump (FFmpeg's thresholds), and in others
# formats that FFmpeg sees in any text or in a single image
NO_VIDEOS = {"tty", "bin", "xbin", "adf", "idf", "image2", "rawvideo"}


class VideoError(UserError):
    """A video file that cannot be read or written; `reason` says why, without its path."""

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def av_path(path):
    """Return a path as FFmpeg takes it: "12:30.mp4" without the prefix would be of the protocol "12"."""
    return f"file:{path}"


@contextlib.contextmanager
def one_line(path, doing):
    """Turn whatever FFmpeg, PyAV or numpy raises in the block into a VideoError; doing: such as "broken film"."""
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise VideoError(path, f"{doing}: not enough memory") from None
    except Exception as error:  # what they may raise is not ours to list
        raise VideoError(path, f"{doing}: {reason_of(error)}") from None


def reason_of(error):
    """Return what an exception says, in one line, without numbers and names that only FFmpeg knows."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


@contextlib.contextmanager
def open_container(path):
    """Yield the opened PyAV container of a video file. Raises VideoError where it is none."""
    import av

    unreadable = "neither a picture nor a film that can be read"
    try:
        kind, name = identify(path)  # tells of missing files, folders and permissions as Python does
        if kind in ("other", "raw"):
            raise VideoError(path, f"{name}, {unreadable}")
        # a playlist must not fetch what it likes from the network
        container = av.open(av_path(path), options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except FileNotFoundError:
        raise VideoError(path, "no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a film") from None
    except PermissionError:
        raise VideoError(path, "no permission to read it") from None
    except UserError:
        raise
    except Exception as error:
        raise VideoError(path, f"{unreadable}: {reason_of(error)}") from None
    with container:
        if container.format.name in NO_VIDEOS or container.format.name.endswith("_pipe"):
            raise VideoError(path, unreadable)
        yield container


def choose_stream(path, container):
    """Return the video stream that a player would show; covers of albums and thumbnails do not count."""
    best = container.streams.best("video")
    moving = [s for s in container.streams.video if not int(s.disposition) & (ATTACHED_PICTURE | TIMED_THUMBNAILS)]
    known = [s for s in moving if s.codec_context is not None]
    if not moving:
        cover = ": only a cover" if container.streams.video else ""
        raise VideoError(path, f"there are no pictures in it{cover}")
    if not known:
        raise VideoError(path, "its pictures are in a format that cannot be decoded: convert it to H.264 first")
    stream = best if best in known else known[0]
    context = stream.codec_context
    check_size(path, context.width, context.height)
    context.options = {**context.options, "max_pixels": str(MAX_PIXELS)}
    return stream


def check_size(path, width, height):
    """Raise VideoError where a frame is too large to be decoded."""
    if width * height > MAX_PIXELS:
        raise VideoError(path, f"{width} x {height} pixels are too many: shrink it with another program first")


def jumping_format(container):
    """Tell whether clocks jump in files of such a format where recordings were put together (MPEG streams)."""
    return bool(container.format.flags & JUMPING)


def find_origin(path, container):
    """Return the second, by the file's own clock, at which it begins."""
    if jumping_format(container):  # FFmpeg's start times may be those of a later part
        with open_container(path) as fresh:
            stamps = []
            for packet in itertools.islice(packets(fresh, [*fresh.streams.video, *fresh.streams.audio]), 50):
                if packet.pts is not None:
                    stamps.append(packet.pts * packet.time_base)
            near = [stamp for stamp in stamps if abs(stamp - stamps[0]) <= 1]
            return min(near, default=Fraction(0))
    starts = [s.start_time * s.time_base for s in container.streams if s.start_time is not None]
    return Fraction(min(starts, default=0))


# --- Packets ---


def packets(container, streams):
    """Yield the packets of some streams in the file's order; where the file is damaged, what follows.

    The packets without data at its end, which PyAV gives to empty the decoders, are left out: see drain().
    """
    import av

    streams = [stream for stream in streams if stream.codec_context is not None]
    errors = 0
    while errors < RETRIES:
        try:
            for packet in container.demux(streams):
                if packet.size:
                    errors = 0
                    yield packet
            return
        except av.error.FFmpegError:
            errors += 1


class Clock:
    """Sets the times of packets right, in the file's order, where they jump: what follows goes on without a gap."""

    def __init__(self, container):
        self.ahead = AHEAD[jumping_format(container)]
        self.shift = Fraction(0)  # seconds added to what the file says
        self.last, self.next = {}, {}  # stream: when its last packet began, and when it is over

    def correct(self, packet):
        """Shift the times of a packet; returns whether it is the first after a jump."""
        jumped = False
        base, index = packet.time_base, packet.stream_index
        if packet.dts is not None:  # otherwise nothing is known: pictures are not shown in the order of their packets
            time = packet.dts * base + self.shift
            if index in self.last and (time < self.last[index] - BACK or time > self.next[index] + self.ahead):
                jumped = True
                self.shift += self.next[index] - time
                time = self.next[index]
            self.last[index], self.next[index] = time, time + (packet.duration or 0) * base
        ticks = round(self.shift / base)
        if ticks:
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        return jumped


class Decoder:
    """Decodes packets, and counts for each stream: those `damaged`, that could not be decoded, those `incomplete`, that
    the container marks as such, and the `frames` that came of all. `jumps` are those of the clock."""

    def __init__(self):
        self.damaged, self.incomplete, self.frames = (collections.Counter() for _ in range(3))
        self.jumps = 0

    def decode(self, stream, packet):
        """Return the frames that a packet completes; packet None empties the decoder."""
        try:
            frames = stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except Exception as error:  # what a decoder may raise is not ours to list
            if packet is not None and not isinstance(error, EOFError):
                self.damaged[stream.index] += 1
            return []
        self.frames[stream.index] += len(frames)
        self.incomplete[stream.index] += packet is not None and packet.is_corrupt
        if stream.type == "audio":
            for frame in frames:
                safe_layout(frame)
        return frames


def safe_layout(owner):
    """Return the AudioLayout of a frame or a codec context.

    PyAV frees the channel list of layouts in an order of their own twice; a reference that is never given back keeps
    it from doing so.
    """
    layout = owner.layout
    if is_unnamed(layout):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
    return layout


def is_unnamed(layout):
    """Tell whether a layout is none that FFmpeg has a name for: "7 channels", or with a list of them."""
    return "channels" in layout.name
