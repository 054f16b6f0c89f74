"""One band of an image, or one part of a batch, a core: what a CPU computes side by side.

MLX computes on a CPU with one thread a stream, but for the BLAS's threads, which wait for one another. So an image is
cut into bands of rows, each an array on a stream of its own, and the BLAS keeps to one thread (blas.py). The layers
take Bands in place of an array. What looks at one cell at a time goes band by band (each()); what looks at windows
takes the rows beyond its band's border from the neighbours (gather()), and the gradient does likewise.
The numbers are those of one band, to rounding. For a batch, the bands are parts of it, which need no neighbours.
"""

import itertools
import threading

import mlx.core as mx

from . import blas
from .arrays import along, blank, join_cells, laid_out, on_cpu, sum_of, wide

ROWS = 4  # the fewest rows a band may have: an array with fewer a band is one piece again
IMAGE_ROWS = 32  # likewise of pixels

count = blas.bands()
of_this_thread = threading.local()


class Bands:
    """N x H x W x C in parts along axis 1 (bands of rows) or 0 (parts of a batch), each on a stream of its own."""

    ndim = 4
    before_relu = None  # the Bands of which a ReLU has made these,
    bias = 0  # and what it added to them first

    def __init__(self, parts, streams, axis=1):
        self.parts, self.streams, self.axis = parts, streams, axis

    @property
    def shape(self):
        n, height, width, channels = self.parts[0].shape
        total = sum(part.shape[self.axis] for part in self.parts)
        return (total, height, width, channels) if self.axis == 0 else (n, total, width, channels)

    @property
    def dtype(self):
        return self.parts[0].dtype

    def __len__(self):
        return self.shape[0]

    def __add__(self, other):
        return each(mx.add, self, other)

    def mean(self, axis):
        """Return the mean over `axis`, which is (1, 2): N x C."""
        if self.axis == 0:
            return join(self).mean(axis=axis)
        sums = each(lambda part: part.sum(axis=axis), self).parts
        return sum_of(sums) / (self.shape[1] * self.shape[2])


def use(number):
    """Cut images into so many bands from here on."""
    global count
    count = number
    blas.share_cores(number)


def use_kept(state):
    """Cut images as for a video's first frame, whose state keeps the number, whatever cores and processes there are
    now: in other bands, the last bits are others.
    """
    state.setdefault("bands", blas.bands(alone=True))
    use(int(state["bands"]))


def streams(number):
    """Return the streams of `number` bands; MLX has them for one Python thread each.

    The first is the one that computes what is in no bands: it need not sleep in between, nor wake the others all at
    once, whom a system may then wake on one core.
    """
    known = of_this_thread.__dict__.setdefault("streams", [mx.default_stream(mx.cpu)])
    known += [mx.new_stream(mx.cpu) for _ in range(number - len(known))]
    return known[:number]


def one(x):
    """Return an array as one band, on the stream that computes it."""
    return Bands([x], [mx.default_stream(mx.default_device())])


def cut(x):
    """Cut N x H x W x C into bands, or a batch of enough images into parts of it; a small image stays an array, as
    do rows of features, N x C. On a GPU all is one band.
    """
    if x.ndim < 4:
        return x
    if not on_cpu():
        return one(x)
    axis = 0 if len(x) >= count else 1
    number = count if axis == 0 else min(count, x.shape[1] // IMAGE_ROWS)
    if number < 2:
        return x
    cuts = [x.shape[axis] * i // number for i in range(number + 1)]
    split = differentiable(
        lambda x: [along(axis, x, start, stop) for start, stop in zip(cuts, cuts[1:], strict=False)],
        lambda x, gradients, _: mx.concatenate(gradients, axis=axis),
    )
    return Bands(split(x), streams(number), axis)


def join(x):
    """Return an array of what may be Bands."""
    return mx.concatenate(x.parts, axis=x.axis) if isinstance(x, Bands) else x


def each(function, x, *others):
    """Return function(x, *others), band by band on the band's stream where these are Bands. It may return a list."""
    if not isinstance(x, Bands):
        return function(x, *others)
    parts = []
    for stream, *arrays in zip(x.streams, x.parts, *(other.parts for other in others), strict=True):
        with mx.stream(stream):
            parts.append(function(*arrays))
    if isinstance(parts[0], list):
        return [Bands(list(these), x.streams, x.axis) for these in zip(*parts, strict=True)]
    return Bands(parts, x.streams, x.axis)


def concatenate(arrays):
    """Concatenate arrays or Bands N x H x W x C along the channels."""
    ends = channel_ends(arrays)

    def gradient(_, dy, outputs):
        parts = mx.split(dy, ends, axis=-1)
        return [laid_out(part) for part in parts] if on_cpu() else parts

    return each(differentiable(lambda *parts: join_cells(parts, -1), gradient), *arrays)


def channel_ends(arrays):
    """Return the channels at which all but the last of concatenated arrays end."""
    return list(itertools.accumulate(x.shape[-1] for x in arrays))[:-1]


def by_rows(function, x, rows):
    """Return function(bands), which makes `rows` rows of bands of rows: of those of x, of each part of a batch, or of
    an array as one band. Where there would be few rows a band, it is called with fewer bands.
    """
    if not isinstance(x, Bands):
        return function(one(x)).parts[0]
    if x.axis == 0:
        lanes = zip(x.parts, x.streams, strict=True)
        return Bands([function(Bands([part], [stream])).parts[0] for part, stream in lanes], x.streams, axis=0)
    return function(merged(x, rows))


def merged(bands, rows):
    """Join neighbours among bands until each of those that are left has a share in `rows` rows."""
    for number in range(len(bands.parts), 0, -1):
        cuts = [len(bands.parts) * i // number for i in range(number + 1)]
        groups = [bands.parts[start:stop] for start, stop in zip(cuts, cuts[1:], strict=False)]
        heights = [sum(part.shape[1] for part in group) for group in groups]
        if number == 1 or min(stop - start for start, stop in shares(heights, rows)) >= ROWS:
            break
    if number == len(bands.parts):
        return bands
    parts, streams = [], [bands.streams[start] for start in cuts[:-1]]
    for stream, group in zip(streams, groups, strict=True):
        with mx.stream(stream):
            parts.append(mx.concatenate(group, axis=1))
    return Bands(parts, streams)


def edges(bands, rows):
    """Return [(start, stop)] of the bands of an array of `rows` rows that is made of `bands`."""
    return shares([part.shape[1] for part in bands.parts], rows)


def shares(heights, rows):
    """Share `rows` rows out as bands of these heights have theirs: [(start, stop)]."""
    total, cuts = sum(heights), [0]
    for height in heights:
        cuts.append(cuts[-1] + height)
    return [(start * rows // total, stop * rows // total) for start, stop in zip(cuts, cuts[1:], strict=False)]


def differentiable(function, gradient):
    """Return `function` with gradient(primals, cotangents, outputs), both on the stream that each call is made on."""

    def call(*primals):
        stream = mx.default_stream(mx.default_device())
        custom = mx.custom_function(function)

        @custom.vjp
        def vjp(*arguments):
            with mx.stream(stream):
                return gradient(*arguments)

        return custom(*primals)

    return call


def gather(parts, start, stop, columns=(0, 0), fill=0.0):
    """Return rows start to stop of what lies in bands, with `fill` beyond the border and in columns left and right."""
    n, _, width, channels = parts[0].shape
    left, right = columns
    if len(parts) == 1 and (start, stop, left, right) == (0, parts[0].shape[1], 0, 0):
        return parts[0]
    pieces = list(segments([wide(part) for part in parts], start, stop))
    if left == right == 0 and pieces:
        (above, first), (offset, last) = pieces[0], pieces[-1]
        rows = [piece for _, piece in pieces]
        below = stop - start - offset - last.shape[1]
        if above:
            rows.insert(0, blank((n, above, width, channels), parts[0].dtype, fill))
        if below:
            rows.append(blank((n, below, width, channels), parts[0].dtype, fill))
        return (mx.concatenate(rows, axis=1) if len(rows) > 1 else first).view(parts[0].dtype)
    whole = blank((n, stop - start, left + width + right, channels), parts[0].dtype, fill)
    for offset, piece in pieces:
        whole[:, offset : offset + piece.shape[1], left : left + width] = piece
    return whole.view(parts[0].dtype)


def segments(parts, start, stop):
    """Yield (offset, rows) of what of the rows start to stop lies in each band."""
    top = 0
    for part in parts:
        bottom = top + part.shape[1]
        if max(start, top) < min(stop, bottom):
            first = max(start, top)
            yield first - start, part[:, first - top : min(stop, bottom) - top]
        top = bottom
