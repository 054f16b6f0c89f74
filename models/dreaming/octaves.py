"""Octaves: the sizes at which an image is dreamed on."""

from dataset.cli import UserError


def octave_sizes(net, shape, targets, octaves, octave_scale):
    """Return [(height, width)] of the octaves that the network can take, from the image's own size down.

    shape: the image's, of which the first two numbers count. Raises UserError where even that size is too small.
    """
    size, fitting = tuple(shape[:2]), []
    names = [target.layer for target in targets]
    while len(fitting) < octaves and min(size) > 0 and net.accepts_size(*size, names):
        fitting.append(size)
        size = tuple(round(side / octave_scale) for side in size)
    if not fitting:
        raise UserError(f"{shape[1]} x {shape[0]} pixels are too few for {', '.join(names)}: take a larger picture")
    return fitting
