"""What the architectures share. Arrays are N x H x W x C; convolution weights O x H x W x I."""

import contextlib
import functools

import mlx.core as mx
import mlx.nn as nn

redirected = False  # set by redirected_relus()


def relu(x):
    """Every ReLU of the networks."""
    return redirected_relu(x) if redirected else plain_relu(x)


@mx.custom_function
def plain_relu(x):
    return mx.maximum(x, 0)


@plain_relu.vjp
def plain_relu_vjp(x, cotangent, output):
    return cotangent * mx.sign(output)  # a third of the passes over memory that the maximum's own gradient makes


@contextlib.contextmanager
def redirected_relus():
    """While it lasts, a ReLU that blocks the whole gradient of an image passes on what would raise its input.

    A target that is dead all over the picture can be climbed to in no other way. Source: tensorflow/lucid,
    misc/redirected_relu_grad.py.
    Whatever computes a ReLU by other means than relu() must leave those aside while `redirected` is true.
    """
    global redirected
    redirected = True
    try:
        yield
    finally:
        redirected = False


@mx.custom_function
def redirected_relu(x):
    return mx.maximum(x, 0)


@redirected_relu.vjp
def redirected_relu_vjp(x, cotangent, output):
    passed = mx.where(output > 0, cotangent, 0)
    blocked = (passed == 0).all(axis=tuple(range(1, x.ndim)), keepdims=True)
    return mx.where(blocked, mx.maximum(cotangent, 0), passed)


class Conv2d(nn.Conv2d):
    """Convolution, in the form that is fastest where it runs (see conv2d)."""

    def __call__(self, x):
        return conv2d(x, self.weight, self.get("bias"), self.stride, self.padding, self.remember)

    def remember(self, name, make, *sources):
        """make(*sources), computed again only when one of the arrays `sources` is not the one of the last call.

        So that what dreaming derives from the weights (folded, transposed) is derived once, and no array that was
        trained or loaded since is ever met by what belonged to the old one.
        """
        kept_sources, kept = self.get("_" + name, ((), None))
        if len(kept_sources) != len(sources) or any(a is not b for a, b in zip(kept_sources, sources, strict=True)):
            kept = make(*sources)
            if not self.training:
                self["_" + name] = (sources, kept)
        return kept


class BasicConv2d(nn.Module):
    """torchvision's BasicConv2d: convolution without bias, batch norm with eps 1e-3, ReLU."""

    def __init__(self, inputs, outputs, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = Conv2d(inputs, outputs, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm(outputs, eps=1e-3)

    def __call__(self, x):
        return relu(conv_bn(self.conv, self.bn, x))


def conv_bn(conv, bn, x):
    """Convolution, then batch norm; with fixed statistics the two are one convolution."""
    if bn.training:
        return bn(conv(x))

    def fold(weight, scale, shift, mean, variance):
        scale = scale * mx.rsqrt(variance + bn.eps)
        return weight * scale[:, None, None, None], shift - mean * scale

    folded = conv.remember("folded", fold, conv.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var)
    return conv2d(x, *folded, conv.stride, conv.padding, conv.remember)


class ReLU(nn.Module):
    def __call__(self, x):
        return relu(x)


# --- Convolution ---
#
# On a GPU, MLX's own. On a CPU its forward pass unfolds the image and its gradients fall to loops, so there a
# convolution is a sum of matrix products, one for each tap of the kernel: with the padded image laid out as a list
# of cells, what tap (i, j) sees of it is a contiguous piece, and no cell is copied. That runs at the speed of the BLAS.


def on_cpu():
    return mx.default_device() == mx.Device(mx.cpu)


def conv2d(x, weight, bias=None, stride=(1, 1), padding=(0, 0), remember=lambda name, make, *sources: make(*sources)):
    """Convolution of N x H x W x C with O x h x w x C. `remember` keeps what is derived from the weights."""
    if weight.shape[1:3] == (1, 1) and stride != (1, 1):
        x, stride = x[:, :: stride[0], :: stride[1]], (1, 1)
    if not on_cpu():
        y = mx.conv2d(x, weight, stride, padding)
        return y if bias is None else y + bias

    taps = remember("taps", taps_forward, weight) if stride == (1, 1) else None

    @mx.custom_function
    def convolution(x, weight):
        if stride == (1, 1):
            return correlate(x, taps, weight.shape[1:3], padding, bias)
        y = mx.conv2d(x, weight, stride, padding)
        return y if bias is None else y + bias

    @convolution.vjp
    def convolution_vjp(primals, dy, _):
        x, weight = primals
        return input_gradient(x, weight, dy, stride, padding, remember), weight_gradient(x, weight, dy, stride, padding)

    return convolution(x, weight)


def taps_forward(weight):
    """O x h x w x C to hw x C x O: a matrix for each tap."""
    o, h, w, c = weight.shape
    return mx.contiguous(weight.transpose(1, 2, 3, 0).reshape(h * w, c, o))


def taps_backward(weight):
    """O x h x w x C to hw x O x C, the kernel turned around."""
    o, h, w, c = weight.shape
    return mx.contiguous(weight[:, ::-1, ::-1].transpose(1, 2, 0, 3).reshape(h * w, o, c))


def correlate(x, taps, kernel, padding, bias=None):
    """N x H x W x C by hw x C x O: a convolution of stride 1 as a sum of matrix products over `taps`."""
    n, height, width, channels = x.shape
    (kh, kw), (ph, pw) = kernel, padding
    rows, columns = height + 2 * ph - kh + 1, width + 2 * pw - kw + 1
    if min(rows, columns) < 1:
        raise ValueError(f"a kernel of {kh} x {kw} is larger than its padded input")
    if kh == kw == 1 and ph == pw == 0:
        y = x.reshape(-1, channels) @ taps[0]
        return (y if bias is None else y + bias).reshape(n, rows, columns, -1)
    # a row more than the padding, so that the last taps find their piece as long as the others
    height, width = height + 2 * ph + 1, width + 2 * pw
    cells = mx.pad(x, [(0, 0), (ph, ph + 1), (pw, pw), (0, 0)]).reshape(-1, channels)
    count = ((n - 1) * height + rows) * width
    y = bias
    for tap in range(kh * kw):
        start = tap // kw * width + tap % kw
        piece = cells[start : start + count]
        y = piece @ taps[tap] if y is None else mx.addmm(y, piece, taps[tap])
    # sums that run over the right border or from one image into the next belong to no window
    outputs = taps.shape[2]
    strides = (height * width * outputs, width * outputs, outputs, 1)
    return mx.as_strided(y, (n, rows, columns, outputs), strides)


def input_gradient(x, weight, dy, stride, padding, remember):
    if stride == (1, 1):
        _, kh, kw, _ = weight.shape
        taps = remember("taps_back", taps_backward, weight)
        return correlate(dy, taps, (kh, kw), (kh - 1 - padding[0], kw - 1 - padding[1]))
    # stride s is stride 1 on blocks of s x s cells: so many blocks, each with s x s x C channels
    blocks = remember("taps_back", lambda w: taps_backward(to_blocks(w, stride)), weight)
    kernel = [-(-k // s) for k, s in zip(weight.shape[1:3], stride, strict=True)]
    dx = from_blocks(correlate(dy, blocks, kernel, [k - 1 for k in kernel]), stride, x.shape[-1])
    (ph, pw), (height, width) = padding, x.shape[1:3]
    beyond = [max(0, p + side - has) for p, side, has in zip(padding, x.shape[1:3], dx.shape[1:3], strict=True)]
    return mx.pad(dx, [(0, 0), (0, beyond[0]), (0, beyond[1]), (0, 0)])[:, ph : ph + height, pw : pw + width]


def weight_gradient(x, weight, dy, stride, padding):
    if stride != (1, 1):
        return mx.vjp(lambda w: mx.conv2d(x, w, stride, padding), [weight], [dy])[1][0]
    n, rows, columns, outputs = dy.shape
    _, kh, kw, channels = weight.shape
    (ph, pw), (height, width) = padding, x.shape[1:3]
    height, width = height + 2 * ph + 1, width + 2 * pw
    cells = mx.pad(x, [(0, 0), (ph, ph + 1), (pw, pw), (0, 0)]).reshape(-1, channels)
    dy = mx.pad(dy, [(0, 0), (0, height - rows), (0, width - columns), (0, 0)]).reshape(-1, outputs)
    count = dy.shape[0] - kh * width
    starts = [i * width + j for i in range(kh) for j in range(kw)]
    taps = mx.stack([dy[:count].T @ cells[start : start + count] for start in starts], axis=1)
    return taps.reshape(outputs, kh, kw, channels)


def to_blocks(x, stride):
    """N x H x W x C to N x H/s x W/s x (s s C), zeros filling up the last blocks."""
    n, height, width, channels = x.shape
    sh, sw = stride
    x = mx.pad(x, [(0, 0), (0, -height % sh), (0, -width % sw), (0, 0)])
    x = x.reshape(n, x.shape[1] // sh, sh, x.shape[2] // sw, sw, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, x.shape[1], x.shape[3], -1)


def from_blocks(x, stride, channels):
    """The inverse of to_blocks."""
    n, height, width, _ = x.shape
    x = x.reshape(n, height, width, *stride, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, height * stride[0], width * stride[1], channels)


# --- Pooling ---


class MaxPool2d(nn.Module):
    """Max pooling with torch's rules, ceil mode included."""

    def __init__(self, kernel_size, stride, padding=0, ceil_mode=False):
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def __call__(self, x):
        return max_pool(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)


def max_pool(x, kernel_size, stride, padding=0, ceil_mode=False):
    """Max pooling as torch does it: in ceil mode the last window may hang over the right and lower border, if it
    starts inside the image or its left padding. Raises ValueError where no window fits.
    """
    k, s, p = kernel_size, stride, padding
    if ceil_mode or p:
        ends = [overhang(size, k, s, p) if ceil_mode else p for size in x.shape[1:3]]
        x = mx.pad(x, [(0, 0), (p, ends[0]), (p, ends[1]), (0, 0)], constant_values=-float("inf"))
    if min(x.shape[1:3]) < k:  # MLX would make an empty map of it
        raise ValueError(f"a window of {k} x {k} is larger than its input, {x.shape[1]} x {x.shape[2]}")
    if not on_cpu():
        return nn.MaxPool2d(k, s)(x)
    return max_along(2, k, s)(max_along(1, k, s)(x))


@functools.cache
def max_along(axis, k, s):
    """A function of N x H x W x C: maxima of windows of k cells, s apart, along axis 1 or 2.

    Its gradient goes to the first of equal maxima, as torch's, by comparing: MLX's own scatters.
    """

    def offset(x, i):
        """What cell i of each window sees."""
        count = (x.shape[axis] - k) // s + 1
        cells = slice(i, i + (count - 1) * s + 1, s)
        return x[:, cells] if axis == 1 else x[:, :, cells]

    @mx.custom_function
    def maximum(x):
        return functools.reduce(mx.maximum, [offset(x, i) for i in range(k)])

    @maximum.vjp
    def maximum_vjp(x, dy, y):
        shares = []
        for i in range(k - 1):
            shares.append(dy * (offset(x, i) == y))
            dy = dy - shares[-1]
        shares.append(dy)
        return scatter(shares, x.shape[axis])

    def scatter(shares, length):
        """Add what each window gives to its cells."""
        count = shares[0].shape[axis]
        blocks = -(-length // s)
        phases = []
        for phase in range(s):
            parts = [
                pad_along(axis, share, i // s, blocks - count - i // s)
                for i, share in enumerate(shares)
                if i % s == phase
            ]
            phases.append(functools.reduce(mx.add, parts))
        if s == 1:
            return phases[0]
        n, height, width, channels = phases[0].shape
        if axis == 1:
            return mx.stack(phases, axis=2).reshape(n, height * s, width, channels)[:, :length]
        return mx.concatenate(phases, axis=-1).reshape(n, height, width * s, channels)[:, :, :length]

    return maximum


def pad_along(axis, x, before, after):
    widths = [(0, 0)] * 4
    widths[axis] = (before, after)
    return mx.pad(x, widths) if before or after else x


def overhang(size, k, s, p):
    """How far ceil mode pads the end of a side, which is `size` long and has p in front (torch's formula)."""
    count = -(-(size + 2 * p - k) // s) + 1
    if (count - 1) * s >= size + p:
        count -= 1
    return max((count - 1) * s + k - size - p, 0)


def avg_pool_3x3(x):
    """3x3 averages at stride 1, over a border of zeros that count: torch's avg_pool2d(x, 3, stride=1, padding=1)."""
    x = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    x = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    return (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) * (1 / 9)


def adaptive_avg_pool(x, size, kernel_size=1, stride=1):
    """Average pooling whose windows are laid out on a map of size x size, and scaled to the map at hand.

    A window [a, b) goes from floor(a H / size) to ceil(b H / size). Single cells make torch's AdaptiveAvgPool2d; on a
    map of that very size it is ordinary pooling with `kernel_size` and `stride`.
    """
    rows, columns = (windows(length, size, kernel_size, stride, x.dtype) for length in x.shape[1:3])
    x = mx.tensordot(rows, x, axes=[[1], [1]])  # rows x N x W x C
    x = mx.tensordot(columns, x, axes=[[1], [2]])  # columns x rows x N x C
    return x.transpose(2, 1, 0, 3)


def windows(length, size, kernel_size, stride, dtype):
    """The matrix that averages `length` cells over the windows of adaptive_avg_pool."""
    matrix = []
    for first in range(0, size - kernel_size + 1, stride):
        start, end = first * length // size, -(-(first + kernel_size) * length // size)
        matrix.append([1 / (end - start) if start <= i < end else 0.0 for i in range(length)])
    return mx.array(matrix, dtype)


class LRN(nn.Module):
    """Local response normalisation across channels, as Caffe's: x / (1 + alpha / 5 * sum of 5 squares) ** 0.75
    (Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012, 3.3).
    """

    def __init__(self, alpha=1e-4):
        super().__init__()
        self.alpha = alpha

    def __call__(self, x):
        channels = x.shape[-1]
        squares = mx.pad(x * x, [(0, 0), (0, 0), (0, 0), (2, 2)])
        total = sum(squares[..., i : i + channels] for i in range(5))
        root = mx.rsqrt(1 + self.alpha / 5 * total)
        return x * root * mx.sqrt(root)  # a power of -3/4 by way of roots, several times faster


def flatten_chw(x):
    """N x H x W x C to N x CHW, the order in which torch's and Caffe's classifiers flatten."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
