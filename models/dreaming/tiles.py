"""Gradients of large images, tile by tile, with memory for one tile."""

import math
import os
from pathlib import Path

import mlx.core as mx

from ..kernels.arrays import on_cpu
from ..registry import entry

MARGIN = 64  # pixels around a tile that its gradient sees, too
SHIFT = 128  # pixels that a cut moves at most from step to step, so that no seam can grow
STRIDE = 32  # a multiple of every layer's, pixels
WORKING_SET = 2 * 2**30  # bytes that the gradient of a tile may take on a CPU, unless less is free


def in_tiles(gradient, tile, rng):
    """Return `gradient` computed tile by tile where an image is larger than a tile of `tile` pixels and its margins."""

    def tiled(image, **options):
        height, width = image.shape[:2]
        rows, columns = (tile_edges(side, tile, rng) for side in (height, width))
        if len(rows) == len(columns) == 1:
            return gradient(image, **options)
        strips = []
        for top, bottom in rows:
            pieces = []
            for left, right in columns:
                y, h = window(top, height, tile)
                x, w = window(left, width, tile)
                seen = image[y : y + h, x : x + w]
                # objectives are means over what is seen: weigh them by its size
                piece = gradient(seen, **options)[top - y : bottom - y, left - x : right - x] * (seen.size / image.size)
                mx.eval(piece)
                pieces.append(piece)
            strips.append(mx.concatenate(pieces, axis=1))
            mx.eval(strips)
        return mx.concatenate(strips, axis=0)

    return tiled


def window(start, side, tile):
    """Return (first pixel, length) of what is seen for the tile that starts at `start`, along a side that is cut.

    All windows of a side are equally long, since MLX keeps memory, and a compiled function, for every size it meets.
    They start at multiples of every stride, so that the cells of the layers lie where the whole image has them.
    """
    if fits_whole(side, tile):
        return 0, side
    length = math.ceil(tile_length(side, tile)) + 2 * MARGIN + STRIDE - 1
    length = min(side, length + (side - length) % STRIDE)  # from the last window's start, it reaches the border
    return min(max(0, start - MARGIN) // STRIDE * STRIDE, side - length), length


def tile_edges(side, tile, rng):
    """Cut a side at random places: [(start, end)] of as few tiles as can be, equally long but for the first and last.

    What a tile sees with its margins is not cut.
    """
    if fits_whole(side, tile):
        return [(0, side)]
    length, offset = tile_length(side, tile), int(rng.integers(0, shift(tile) + 1))
    marks = [0, *(round(i * length) - offset for i in range(1, tile_count(side, tile))), side]
    return list(zip(marks, marks[1:], strict=False))


def fits_whole(side, tile):
    return side <= tile + 2 * MARGIN + STRIDE


def tile_length(side, tile):
    """Return the length of a side's tiles, at most `tile`, of which a cut may take shift() from the first and last."""
    return (side + shift(tile)) / tile_count(side, tile)


def tile_count(side, tile):
    return -(-(side + shift(tile)) // tile)


def shift(tile):
    return min(SHIFT, tile // 2)


def tile_size(net):
    """Return the side of the largest square tile, in pixels, whose gradient fits into the memory at hand."""
    cpu_bytes, gpu_bytes = entry(net.metadata.model).gradient_bytes
    per_pixel = cpu_bytes if on_cpu() else max(cpu_bytes, gpu_bytes)
    seen = int((working_set() / per_pixel) ** 0.5)
    return max(256, seen - 2 * MARGIN - 2 * STRIDE)


def working_set():
    """Return how many bytes the gradient of a tile may take where MLX computes."""
    if mx.default_device() != mx.Device(mx.gpu):
        return min(WORKING_SET, memory_available() // 2)
    return max(2**28, min(gpu_memory() // 4, (gpu_memory() - mx.get_active_memory()) // 2))


def bound_cache():
    """Keep MLX from holding more freed memory of a GPU than a tile takes; let go what the last octave left."""
    if mx.default_device() == mx.Device(mx.gpu):
        mx.set_cache_limit(working_set())
    if not on_cpu():
        mx.clear_cache()


def gpu_memory():
    """Return how many bytes of memory a GPU can work with."""
    info = mx.device_info()
    return int(info.get("max_recommended_working_set_size") or info.get("total_memory") or info["memory_size"])


def memory_available():
    """Return how many bytes are free on this machine."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        return 1024 * int(meminfo.read_text().split("MemAvailable:")[1].split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
