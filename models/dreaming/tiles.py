"""Gradients of large images, tile by tile, with memory for one tile."""

import os
from pathlib import Path

import mlx.core as mx

MARGIN = 64  # pixels around a tile that its gradient sees, too; each step cuts elsewhere, so that no seam can grow
WORKING_SET = 2 * 2**30  # bytes that the gradient of a tile may take, unless less is free
GRADIENT_COST = 4  # bytes it takes, as a multiple of those of the activations (measured: 2.6 to 4.6)


def in_tiles(gradient, tile, rng):
    """Return `gradient` computed tile by tile where an image is larger than `tile` pixels on a side."""

    def tiled(image, **options):
        height, width = image.shape[:2]
        if max(height, width) <= tile:
            return gradient(image, **options)
        rows, columns = (tile_edges(side, tile, rng) for side in (height, width))
        strips = []
        for top, bottom in rows:
            pieces = []
            for left, right in columns:
                # from a multiple of every stride on, so that the cells of the layers lie where the whole image has them
                y, x = (max(0, start - MARGIN) // 32 * 32 for start in (top, left))
                seen = image[y : bottom + MARGIN, x : right + MARGIN]
                # objectives are means over what is seen: weigh them by its size
                piece = gradient(seen, **options)[top - y : bottom - y, left - x : right - x] * (seen.size / image.size)
                mx.eval(piece)
                pieces.append(piece)
            strips.append(mx.concatenate(pieces, axis=1))
            mx.eval(strips)
        return mx.concatenate(strips, axis=0)

    return tiled


def tile_edges(side, tile, rng):
    """Cut a side at a random offset: [(start, end)] of equal lengths, at most `tile`, the first and last shorter."""
    if side <= tile:
        return [(0, side)]
    length = -(-side // -(-side // tile))
    marks = [0, *range(int(rng.integers(1, length + 1)), side, length), side]
    return list(zip(marks, marks[1:], strict=False))


def tile_size(net, targets):
    """Return the side of the largest square image, in pixels, whose gradient fits into the memory at hand."""
    side = 256
    layers = {target.layer for target in targets}
    bytes_ = 0
    for name, activation in net.stages(mx.zeros((1, side, side, 3))):  # laid out, not computed
        bytes_ += activation.nbytes
        layers.discard(name)
        if not layers:
            break
    pixels = min(WORKING_SET, memory_available() // 2) / (GRADIENT_COST * bytes_ / side**2)
    return max(256, int(pixels**0.5) - 2 * MARGIN)


def memory_available():
    """Return how many bytes are free where MLX computes."""
    if mx.default_device() == mx.Device(mx.gpu):
        info = mx.device_info()
        total = info.get("max_recommended_working_set_size") or info.get("total_memory") or info["memory_size"]
        return total - mx.get_active_memory()
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        return 1024 * int(meminfo.read_text().split("MemAvailable:")[1].split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
