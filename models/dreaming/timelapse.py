"""Timelapse: a dream as it grows, kept every few steps (dream.py --save-every, --growth)."""

import contextlib

from dataset.cli import print_result
from dataset.files import shorten
from dataset.images import write_animation, write_image


@contextlib.contextmanager
def timelapse(image, output, every, how):
    """Yield a callback for deepdream() that keeps the image after every `every`-th step; none is kept for None.

    image: before the first step. how: "pictures" writes each to <output>.frames/ at once; "gif" or "webp" writes one
    animation beside `output` at the end, also of a dream that was interrupted.
    """
    frames, count = [image], 0

    def keep(current):
        nonlocal count
        count += 1
        if not every or count % every:
            return
        if how == "pictures":
            write_image(output.with_name(shorten(output.stem, ".frames")) / f"{count:04}.png", current())
        else:
            frames.append(current())

    try:
        yield keep
    finally:
        if len(frames) > 1:
            path = output.with_name(shorten(output.stem, f"_growth.{how}"))
            write_animation(path, frames)
            print_result(path)
