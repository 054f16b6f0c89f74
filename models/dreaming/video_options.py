"""The options of dream_video.py that say how a zoom moves, and what is dreamed of a video."""

from fractions import Fraction
from pathlib import Path

from dataset.camera import LARGEST, ZOOMS
from dataset.cli import number, whole_number

ZOOM_DEFAULTS = {"octaves": 2, "steps": 4}  # a zoom dreams on the same frame again and again
VIDEO_DEFAULTS = {"octaves": 4, "steps": 10}
VIDEO_EXAMPLES = (  # at the end of --help
    "python dream_video.py photo.jpg -o zoom.mp4 --frames 240 --rotate 0.5",
    "python dream_video.py clip.mp4 -o dream.mp4 --flow --end 0:10",
    "python dream_video.py photo.jpg -o loop.webp --loop --class castle",
)


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
    add("--frames", type=whole_number(1), default=120, metavar="N", help="length of the film, in frames")
    add("--fps", type=frame_rate, default="24", metavar="X", help="frames a second, such as 30 or 30000/1001")
    scale = "magnification from one frame to the next; below 1 it zooms out"
    add("--zoom", type=zoom_scale, default=1.05, metavar="X", help=scale)
    add("--rotate", type=finite, default=0.0, metavar="DEG", help="degrees to turn a frame, counter-clockwise")
    pan = "move the view so many pixels right and down, a frame"
    add("--pan", type=finite, nargs=2, default=(0.0, 0.0), metavar=("X", "Y"), help=pan)
    center = "zoom into this point: 0 0 is the top left corner, 1 1 the bottom right"
    add("--center", type=finite, nargs=2, default=(0.5, 0.5), metavar=("X", "Y"), help=center)
    add(
        "--schedule",
        type=Path,
        metavar="FILE",
        help="change zoom, rotate, pan, center, layers and concepts over time, smoothly: JSON such as "
        '[{"frame": 0, "zoom": 1.05}, {"frame": 60, "zoom": 1.01, "layers": ["inception3b"]}]',
    )
    add(
        "--loop",
        action="store_true",
        help="end where the film begins: the last frames dissolve into those before the first",
    )
    return zoom


def add_video_options(parser):
    """Add the options of a dream over a video, and return their group."""
    note = "Other defaults: --steps {steps}, --octaves {octaves}.".format(**VIDEO_DEFAULTS)
    video = parser.add_argument_group("dream over a film", note)
    add = video.add_argument
    add("--start", type=moment, metavar="TIME", help="begin at this time of the film, in seconds or h:m:s")
    add("--end", type=moment, metavar="TIME", help="end at this time of the film, in seconds or h:m:s")
    add(
        "--blend",
        type=number(least=0, most=1),
        metavar="X",
        help="share of a frame's dream that is carried into the next, 0..1 (default: 0; 0.8 with --flow)",
    )
    add(
        "--flow",
        action="store_true",
        help="carry the dream along what moves in the film, so that it sticks there (needs OpenCV)",
    )
    return video
