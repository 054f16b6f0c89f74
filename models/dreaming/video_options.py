"""The options of dream_video.py that say how a zoom moves, and what is dreamed of a video."""

from fractions import Fraction
from pathlib import Path

from dataset.camera import LARGEST, ZOOMS
from dataset.cli import number, whole_number


def ranged(convert, low, high, name):
    """Return a type for argparse: convert(text) from `low` to `high`; errors call it a `name`."""

    def parse(text):
        try:
            value = convert(text)
        except ZeroDivisionError:  # Fraction's
            raise ValueError from None
        if not low <= value <= high:
            raise ValueError
        return value

    parse.__name__ = name
    return parse


def seconds(text):
    """Convert S, M:S or H:M:S to seconds."""
    total = Fraction(0)
    for part in text.split(":"):
        total = total * 60 + Fraction(part)
    return total


percentage = ranged(int, 0, 100, "whole number from 0 to 100")
finite = ranged(float, -LARGEST, LARGEST, "number")
zoom_scale = ranged(float, *ZOOMS, "number from {:g} to {:g}".format(*ZOOMS))
frame_rate = ranged(Fraction, Fraction(1, 1000), 1000, "frame rate")
moment = ranged(seconds, 0, 1e9, "time")


def add_zoom_options(parser):
    """Add the options of a zoom, and return their group."""
    zoom = parser.add_argument_group("zoom into a picture")
    add = zoom.add_argument
    add("--frames", type=whole_number(1), default=120, metavar="N", help="length of the film")
    add("--fps", type=frame_rate, default="24", metavar="X", help="frames/s, such as 24 or 30000/1001")
    scale = "scale from one frame to the next; below 1 it zooms out"
    add("--zoom", type=zoom_scale, default=1.05, metavar="X", help=scale)
    add("--rotate", type=finite, default=0.0, metavar="DEG", help="degrees a frame, counter-clockwise")
    pan = "pixels that the view moves right and down, a frame"
    add("--pan", type=finite, nargs=2, default=(0.0, 0.0), metavar=("X", "Y"), help=pan)
    center = "what stays in place: 0 0 is the top left corner, 1 1 the bottom right"
    add("--center", type=finite, nargs=2, default=(0.5, 0.5), metavar=("X", "Y"), help=center)
    add(
        "--schedule",
        type=Path,
        metavar="FILE",
        help="change layers, concepts, zoom, rotate, pan and center over time, smoothly: JSON such as "
        '[{"frame": 0, "zoom": 1.05}, {"frame": 60, "zoom": 1.01, "rotate": 1, "layers": ["inception3b"]}]',
    )
    add(
        "--loop",
        action="store_true",
        help="end where the film begins: the last frames dissolve into those before its first (dreams up to 24 frames "
        "more)",
    )
    return zoom


def add_video_options(parser):
    """Add the options of a dream over a video, and return their group."""
    video = parser.add_argument_group("dream over a film", "There, --octaves is 4 and --steps is 10 unless given.")
    add = video.add_argument
    add("--start", type=moment, metavar="TIME", help="begin there, in seconds or h:m:s")
    add("--end", type=moment, metavar="TIME", help="end there, in seconds or h:m:s")
    add(
        "--blend",
        type=number(least=0, most=1),
        metavar="X",
        help="share of a frame's dream that is carried into the next, 0 to 1 (default: 0; 0.8 with --flow)",
    )
    add(
        "--flow",
        action="store_true",
        help="carry it along the motion in the film, so that dreams stick to what moves (needs OpenCV)",
    )
    return video
