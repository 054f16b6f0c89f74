"""A video's frames shared out among the processes of an mlx.launch, on one machine or several; rank 0 has them all.

Frames that feed on one another, a scene's, are one process's work: they make a run. All processes know the runs, and
so who dreams which frame in which round; after each round they exchange what they made.
"""

import io
from bisect import bisect_right
from collections import deque

import mlx.core as mx
import numpy as np

from dataset.cli import UserError


def share_frames(group, dream, images, starts, total, finished, state, keep):
    """Yield on rank 0, in order, the state after each frame from number `finished` on; nothing on other ranks.

    dream(before, image, state): returns the state after the frame `image`; `before`, the frame before it, is None where
    a run begins. images: an iterable of all frames. starts: the numbers of the frames that begin a run, in order.
    state: that of the frame before `finished`. keep(n, image): keeps a dreamed frame that came too early; for it, None
    is yielded, unless it is the last of its run that is there.
    """
    rank, frames, before, at, begins = group.rank(), iter(images), None, 0, set(starts)
    early, latest = {}, {}  # {frame: its state, or None once it is kept}; {run: its last frame so far}
    for turn in rounds(starts, total, finished, group.size()):
        mine, entry = turn[rank], b""
        if mine is not None:
            while at < mine:
                before, at = next(frames, None), at + 1
            image, at = next(frames, None), at + 1
            if image is None:
                raise UserError("the frames of the video cannot be read a second time: has it changed?")
            state = dream(None if mine in begins else before, image, state)
            before, entry = image, pack(state)
        for n, data in zip(turn, exchange(group, entry), strict=True):
            if rank or n is None:
                continue
            run = bisect_right(starts, n)
            if latest.get(run) in early:
                keep(latest[run], early[latest[run]]["frame"])
                early[latest[run]] = None
            early[n], latest[run] = unpack(data), n
        while not rank and finished in early:
            yield early.pop(finished)
            finished += 1


def rounds(starts, total, finished, size):
    """Yield who dreams what: the number of a frame for each of `size` ranks, or None for one without work."""
    ends = [*starts, total]
    runs = deque(range(max(a, finished), b) for a, b in zip(ends, ends[1:], strict=False) if b > finished)
    work = [deque() for _ in range(size)]
    while True:
        for own in work:
            if not own and runs:
                own.extend(runs.popleft())
        if not any(work):
            return
        yield [own.popleft() if own else None for own in work]


def from_first(group, **values):
    """Return the arrays that rank 0 was given by name, on all ranks."""
    return unpack(exchange(group, pack(values) if group.rank() == 0 else b"")[0])


def exchange(group, data):
    """Return what each rank gave, bytes. Raises UserError where one is gone."""

    def gather(array):
        return np.array(mx.distributed.all_gather(mx.array(array)[None], group=group))

    try:
        lengths = gather(len(data)).tolist()
        everyone = gather(np.frombuffer(data.ljust(max(lengths), b"\0"), np.uint8))
    except RuntimeError as error:
        raise UserError(f"another process of this mlx.launch is gone ({error}): the same command continues") from None
    return [row[:length].tobytes() for row, length in zip(everyone, lengths, strict=True)]


def pack(arrays):
    """Return the bytes of {name: array}."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack(data):
    with np.load(io.BytesIO(data)) as arrays:
        return dict(arrays)
