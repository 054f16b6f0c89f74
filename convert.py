#!/usr/bin/env python3
"""Turn checkpoints of other frameworks into the weights that this project reads. See --help."""

from pathlib import Path

import models
from models import cli, renaming, weights
from models.cli import UsageError, UserError


def convert(path, output=None, model=None, dtype="float16", statistics=None, classes=None, origin=None):
    """Convert one checkpoint; returns (path of the weights file, its metadata).

    output: None puts it where models.load looks for it. statistics: {"mean", "std", "channel_order"} of pixels
    0..255 that replace those of the published network. classes: names in the order of the classifier. Raises UserError.
    """
    path = Path(path)
    arrays, metadata = renaming.load(path, model)
    output = Path(output) if output else models.WEIGHTS / f"{metadata['model']}_mlx.npz"
    if output.exists() and output.samefile(path):
        raise UsageError(f"{output} is the checkpoint itself: name another file with -o")
    if classes and len(classes) != metadata["num_classes"]:
        raise UserError(
            f"{path}: the classifier has {metadata['num_classes']} classes, the list of names {len(classes)}"
        )
    metadata |= statistics or {}
    metadata |= {"classes": classes} if classes else {}
    metadata |= {"origin": origin} if origin else {}
    weights.write(output, arrays, metadata, dtype)
    return output, metadata


def pixel_statistics(mean, std, order=None):
    """Statistics of pixels 0..255 from the command line's, which count in 0..1 unless a mean is above 1."""
    given = {"channel_order": order} if order else {}
    if not mean and not std:
        return given
    if not mean or not std:
        raise UsageError("--mean and --std belong together")
    if min(std) <= 0:
        raise UsageError("--std needs three numbers above 0")
    unit = 1 if max(mean) > 1 else 255
    return given | {"mean": [round(m * unit, 6) for m in mean], "std": [round(s * unit, 6) for s in std]}


def read_classes(path):
    """The lines of a text file: a class a line, in the order of the classifier."""
    try:
        names = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the names of the classes: {error}") from None
    return [name.strip() for name in names if name.strip()]


def parser():
    p = cli.Parser(
        prog="convert.py", description="Convert checkpoints of PyTorch to the weights that this project reads."
    )
    p.add_argument("file", metavar="FILE", help="checkpoint to convert: .pth, .pt, .pth.tar")
    p.add_argument("-o", "--output", metavar="OUT", help="weights file to write (default: models/weights/NAME_mlx.npz)")
    p.add_argument("--model", metavar="NAME", help="network it belongs to (default: recognised from its parameters)")
    p.add_argument("--dtype", choices=weights.DTYPES[:2], default="float16", help="how numbers are stored")
    p.add_argument(
        *("--mean",),
        nargs=3,
        type=float,
        metavar=("R", "G", "B"),
        help="mean of the pixels that the network was trained with, in 0..1, or in 0..255 if one is above 1 "
        "(default: that of the published network)",
    )
    p.add_argument(
        "--std", nargs=3, type=float, metavar=("R", "G", "B"), help="standard deviation, in the unit of --mean"
    )
    p.add_argument("--channel-order", choices=("RGB", "BGR"), help="what its first layer takes (default: as published)")
    p.add_argument("--classes", metavar="TXT", help="names of its classes, one a line")
    p.add_argument("--origin", metavar="TEXT", help="licence or note of origin, kept in the file")
    return p


def main():
    args = parser().parse_args()
    if args.model:
        models.entry(args.model)
    path, metadata = convert(
        args.file,
        args.output,
        args.model,
        args.dtype,
        pixel_statistics(args.mean, args.std, args.channel_order),
        read_classes(args.classes) if args.classes else None,
        args.origin,
    )
    print(f"{path}: {metadata['model']}, {metadata['num_classes']} classes, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    cli.run(main)
