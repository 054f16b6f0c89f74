"""Convolutions, in the form that is fastest where they run. Arrays N x H x W x C; weights O x H x W x I.

On a GPU, those of gpu.py.

On a CPU, MLX's own unfolds the image and takes gradients in loops, so there a convolution is made of matrix
products on what is in memory already:
- kernels of 3x3 between many channels by Winograd's algorithm, with a quarter of the multiplications;
- others as a sum over the rows of the kernel: with what a row of it sees laid out as a list of cells, another row sees
  a piece of the same list;
- a gradient at stride s as one at stride 1 on blocks of s x s cells.
"""

import mlx.core as mx

from . import relu as relu_kernels
from .arrays import blank, laid_out, on_cpu, overlap_add, sum_of, wide
from .bands import Bands, by_rows, differentiable, each, edges, gather, segments
from .blocks import depth_to_space, space_to_depth
from .gpu import conv2d_gpu
from .winograd import by_winograd, winograd, winograd_factors, winograd_weight_gradient


def uncached(name, make, *sources):
    return make(*sources)


def conv2d_relu(x, weight, bias=None, stride=(1, 1), padding=(0, 0), cached=uncached):
    """Return relu(conv2d(...)), on a GPU as one function whose gradient is a convolution."""
    if on_cpu() or relu_kernels.redirected:
        return relu_kernels.relu(conv2d(x, weight, bias, stride, padding, cached))
    x, stride = subsampled(x, weight, stride, padding)
    y = each(lambda x: conv2d_gpu(x, weight, bias, stride, padding, cached, relu=True), x)
    if isinstance(y, Bands):  # what nobody asks for is never computed
        y.before_relu = each(lambda x: conv2d_gpu(x, weight, None, stride, padding, cached), x)
        y.bias = 0 if bias is None else bias
    return y


def conv2d(x, weight, bias=None, stride=(1, 1), padding=(0, 0), cached=uncached):
    """Convolve N x H x W x C, an array or Bands, with O x h x w x C, and add the bias.

    cached: keeps what is derived from the weights; see Conv2d.cached. Raises ValueError where the kernel is larger than
    its padded input.
    """
    x, stride = subsampled(x, weight, stride, padding)
    if not on_cpu():
        return each(lambda x: conv2d_gpu(x, weight, bias, stride, padding, cached), x)
    kernel = weight.shape[1:3]
    if kernel == stride == (1, 1) and padding == (0, 0):
        matrix = cached("matrix", as_matrix, weight)
        return each(lambda x: product(x, matrix, bias), x)
    rows, columns = (
        (side + 2 * p - k) // s + 1 for side, p, k, s in zip(x.shape[1:3], padding, kernel, stride, strict=True)
    )
    if min(rows, columns) < 1:
        raise ValueError("a kernel of {} x {} is larger than its padded input".format(*kernel))
    return by_rows(lambda bands: convolve(bands, weight, bias, stride, padding, (rows, columns), cached), x, rows)


def subsampled(x, weight, stride, padding):
    """Return (x, stride), a stride of 1 x 1 kernels being applied to x."""
    if weight.shape[1:3] != (1, 1) or padding != (0, 0) or stride == (1, 1):
        return x, stride
    if not on_cpu():
        return each(lambda x: x[:, :: stride[0], :: stride[1]], x), (1, 1)
    return by_rows(lambda bands: subsample(bands, *stride), x, -(-x.shape[1] // stride[0])), (1, 1)


def subsample(bands, sh, sw):
    """Take every sh-th row and every sw-th column of bands of rows."""
    n, height, width, channels = bands.shape
    inner, outer = edges(bands, -(-height // sh)), edges(bands, height)

    def forward(parts):
        outputs = []
        for stream, (start, stop) in zip(bands.streams, inner, strict=True):
            with mx.stream(stream):
                pieces = segments([wide(part) for part in parts], start * sh, (stop - 1) * sh + 1)
                pieces = [rows[:, -first % sh :: sh, ::sw] for first, rows in pieces]
                outputs.append(mx.concatenate(pieces, axis=1).view(parts[0].dtype))
        return outputs

    def backward(_, dy, outputs):
        gradients = []
        for stream, (start, stop) in zip(bands.streams, outer, strict=True):
            with mx.stream(stream):
                dx = blank((n, stop - start, width, channels), dy[0].dtype)
                dx[:, -start % sh :: sh, ::sw] = wide(gather(dy, -(-start // sh), -(-stop // sh)))
                gradients.append(dx.view(dy[0].dtype))
        return gradients

    return Bands(differentiable(forward, backward)(bands.parts), bands.streams)


def as_matrix(weight):
    """Return the weights O x h x w x C of a convolution as a matrix of (h w C) x O."""
    return weight.reshape(len(weight), -1).T


def product(x, matrix, bias):
    """Multiply cells ... x C with C x O and add the bias: a convolution with a kernel of 1 x 1."""
    y = x @ matrix
    return y if bias is None else y + bias


def convolve(bands, weight, bias, stride, padding, size, cached):
    """Convolve bands of rows; `size` is that of the output, rows x columns."""
    kernel, (sh, _), (ph, _) = weight.shape[1:3], stride, padding
    lanes = list(zip(bands.streams, edges(bands, size[0]), strict=True))
    factors = cached("factors", matrix_factors, weight) if stride == (1, 1) else None

    def forward(parts, weight, bias=None):
        outputs = []
        for stream, (start, stop) in lanes:
            with mx.stream(stream):
                if stride == (1, 1):
                    y = correlate(parts, start - ph, (stop - start, size[1]), padding[1], factors, kernel, bias)
                else:
                    cells = unfold(seen(parts, start, stop), kernel, stride)
                    y = product(cells, as_matrix(weight), bias).reshape(-1, stop - start, size[1], len(weight))
            outputs.append(y)
        return outputs

    def seen(parts, start, stop):
        """Return the padded rows, and padded columns, that windows start to stop look at."""
        return gather(parts, start * sh - ph, (stop - 1) * sh - ph + kernel[0], (padding[1],) * 2)

    def backward(primals, dy, _):
        parts = primals[0]  # the weights come as other objects, for which cached() would keep nothing
        dx = input_gradient(bands, weight, dy, stride, padding, cached)
        weights, biases = [], []
        for (stream, ends), part in zip(lanes, dy, strict=True):
            with mx.stream(stream):
                if stride == (1, 1) and by_winograd(weight):
                    weights.append(winograd_weight_gradient(parts, ends[0] - ph, padding[1], part))
                else:
                    weights.append(weight_gradient(seen(parts, *ends), weight, part, stride))
                biases.append(part.sum(axis=(0, 1, 2)))
        return (dx, sum_of(weights), sum_of(biases))[: len(primals)]  # what nobody asks for is never computed

    primals = (bands.parts, weight) if bias is None else (bands.parts, weight, bias)
    return Bands(differentiable(forward, backward)(*primals), bands.streams)


def unfold(x, kernel, stride):
    """Lay out what each window of the padded x sees: windows x (kh kw C); cells that are windows lie so already."""
    n, height, width, channels = x.shape
    if kernel == stride == (1, 1):
        return x.reshape(-1, channels)
    (kh, kw), (sh, sw) = kernel, stride
    rows, columns, row = (height - kh) // sh + 1, (width - kw) // sw + 1, width * channels
    strides = (height * row, sh * row, sw * channels, row, 1)
    return laid_out(mx.as_strided(x, (n, rows, columns, kh, kw * channels), strides)).reshape(n * rows * columns, -1)


def matrix_factors(weight):
    """Return what correlate() multiplies with: Winograd's factors, or a matrix a row of the kernel, (kw C) x O."""
    if by_winograd(weight):
        return winograd_factors(weight)
    return [mx.contiguous(weight[:, i].reshape(len(weight), -1).T) for i in range(weight.shape[1])]


def correlate(parts, top, size, left, factors, kernel, bias=None):
    """Make size[0] x size[1] outputs of a convolution of stride 1 with matrix_factors() of its weights.

    The first window begins in row `top` of what lies in the bands `parts`, and `left` columns before it.
    """
    (kh, kw), (rows, columns) = kernel, size
    n, _, width, _ = parts[0].shape
    if not isinstance(factors, list):
        return winograd(parts, top, size, left, factors, bias)
    x = gather(parts, top, top + rows + kh - 1, (left, columns + kw - 1 - width - left))
    height = x.shape[1]
    cells = unfold(x, (1, kw), (1, 1))
    y = sum_of_rows(cells, [i * columns for i in range(kh)], ((n - 1) * height + rows) * columns, factors)
    y = y if bias is None else y + bias
    # rows that run from one image into the next belong to no window
    outputs = y.shape[1]
    return mx.as_strided(y, (n, rows, columns, outputs), (height * columns * outputs, columns * outputs, outputs, 1))


def sum_of_rows(cells, starts, count, factors):
    """Return the sum of the products of `count` cells, from each of `starts` on, with the matrix of a kernel's row."""
    total = None
    for start, factor in zip(starts, factors, strict=True):
        piece = cells[start : start + count]
        total = piece @ factor if total is None else mx.addmm(total, piece, factor)
    return total


def input_gradient(bands, weight, dy, stride, padding, cached):
    """Compute the gradient for the bands of x: a convolution of dy, in bands, too, with the kernel flipped."""

    def flipped(weight):
        return matrix_factors(space_to_depth(weight, stride)[:, ::-1, ::-1].transpose(3, 1, 2, 0))

    height, width, channels = bands.shape[1:]
    (sh, sw), (ph, pw) = stride, padding
    kernel = [-(-k // s) for k, s in zip(weight.shape[1:3], stride, strict=True)]  # its size in blocks
    if few := channels <= 4:
        factors = cached("rows", lambda w: row_factors(space_to_depth(w, stride)), weight)
    else:
        factors = cached("flipped", flipped, weight)
    gradients = []
    for stream, (start, stop) in zip(bands.streams, edges(bands, height), strict=True):
        first, last = (start + ph) // sh, -(-(stop + ph) // sh)  # blocks of the padded image, and likewise columns:
        left, right = pw // sw, -(-(width + pw) // sw)
        top, size = first - kernel[0] + 1, (last - first, right - left)
        with mx.stream(stream):
            if few:
                beyond = max(0, right - dy[0].shape[2] - kernel[1] + 1)
                blocks = conv_transpose(gather(dy, top, last, (0, beyond)), factors, kernel[1])[:, :, left:right]
            else:
                blocks = correlate(dy, top, size, kernel[1] - 1 - left, factors, kernel)
            if stride != (1, 1):
                up, before = start + ph - first * sh, pw - left * sw
                blocks = depth_to_space(blocks, stride, channels)[:, up : up + stop - start, before : before + width]
        gradients.append(blocks)
    return gradients


def row_factors(weight):
    """Return the matrices that conv_transpose() multiplies with, O x (kw C) each: one a row of the kernel."""
    return [mx.contiguous(weight[:, i].reshape(len(weight), -1)) for i in range(weight.shape[1])]


def conv_transpose(dy, factors, columns):
    """Compute a transposed convolution of stride 1 to few channels, by row_factors() of a kernel of `columns` columns.

    dy: N x h x w x O. Returns N x (h - kh + 1) x (w + columns - 1) x C, without the rows that look beyond dy. A row of
    the kernel is one product for all its taps, whose columns are then added where they belong.
    """
    n, height, width, outputs = dy.shape
    kernel_rows, channels = len(factors), factors[0].shape[1]
    rows, starts = height - kernel_rows + 1, [(kernel_rows - 1 - i) * width for i in range(kernel_rows)]
    total = sum_of_rows(dy.reshape(-1, outputs), starts, ((n - 1) * height + rows) * width, factors)
    strides = (height * width * channels, width * channels, channels, channels // columns, 1)
    taps = mx.as_strided(total, (n, rows, width, columns, channels // columns), strides)
    return overlap_add(2, [(j, taps[:, :, :, j]) for j in range(columns)], width + columns - 1)


def weight_gradient(x, weight, dy, stride):
    """Compute the gradient for the weights, O x h x w x C, of the padded x."""
    return (dy.reshape(-1, len(weight)).T @ unfold(x, weight.shape[1:3], stride)).reshape(weight.shape)
