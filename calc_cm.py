"""What the colours of some pictures are: mean, standard deviation, covariance, and the 3x3 matrix that dreams need.

    python calc_cm.py dataset/insects -o insects_cm.npz
    python dream.py photo.jpg --decorrelate insects_cm.npz

Every picture weighs the same, whatever its size; channels are in RGB order, values 0..1, all pixels as they are read
for dreaming and training (converted to sRGB where the file names another colour space). For picture i with the pixels
X_i (n_i x 3), own mean m_i:

    mean        m = average over i of m_i                        std: square root of the average of (x - m)^2
    covariance  C = average of (X_i - m_i)^T (X_i - m_i) / (n_i - 1)      --per-image, as dream-creator's calc_cm.py
                    average of (X_i - m)^T (X_i - m) / n_i                --pooled: with what tells pictures apart
    matrix      M = U sqrt(S), C = U S U^T: the columns are the principal colour axes, longest first, each as long as
                the colours' standard deviation along it; M M^T = C. Red is positive in each.
    normalized  M / its largest column norm: lucid's scaling (tensorflow/lucid, optvis/param/color.py)

The file that -o writes is an .npz of float64 arrays without pickle: `matrix`, `normalized`, `covariance`, `correlation`
(3, 3); `mean`, `std` (3,); and `count`, the number of pictures, `pooled`, 0 or 1. dataset.color.load_matrix() reads it.
"""

import os
import sys

from models.color_statistics import combine, read_moments

import numpy as np

from dataset import cli, plots
from dataset.cli import Parser, UserError, log, npz_path, progress, seed_number, whole_number
from dataset.color import normalize_matrix
from dataset.files import atomic_write
from dataset.folder import find_images
from dataset.images import check_writable, write_image
from dataset.workers import cores

PLOT_PIXELS = 20_000


def save_matrix(path, statistics):
    """Write ColorStatistics as the .npz that load_matrix() reads."""
    arrays = {
        "matrix": statistics.matrix,
        "normalized": normalize_matrix(statistics.matrix),
        "covariance": statistics.covariance,
        "correlation": statistics.correlation,
        "mean": statistics.mean,
        "std": statistics.std,
        "count": np.array(statistics.count),
        "pooled": np.array(int(statistics.pooled)),
    }
    with atomic_write(path) as temporary:
        np.savez(temporary, **arrays)


def build_parser():
    parser = Parser(
        prog="calc_cm.py",
        usage="calc_cm.py [options] FOLDER|PICTURE ...",
        description="Measure the mean, the standard deviation and the 3x3 colour matrix of pictures.",
        examples=(
            "python calc_cm.py dataset/slugs",
            "python calc_cm.py dataset/slugs -o slugs_cm.npz --plot colours.png",
            "python calc_cm.py photos/ dataset/slugs --sample 1000 --pooled",
        ),
    )
    parser.add_argument(
        "pictures", nargs="+", metavar="FOLDER|PICTURE", help="pictures, or folders with pictures at any depth"
    )
    parser.add_argument(
        *("-o", "--output"),
        type=npz_path,
        metavar="NPZ",
        help="save it for dream.py --decorrelate (default: it is only printed)",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--per-image", action="store_true", help="covariance about each picture's own mean, averaged (the default)"
    )
    kind.add_argument("--pooled", action="store_true", help="covariance of all pixels about the common mean")
    parser.add_argument("--sample", type=whole_number(1), metavar="N", help="take N pictures at random instead of all")
    parser.add_argument(
        "--seed", type=seed_number, default=0, metavar="N", help="seed of the random choice of --sample"
    )
    parser.add_argument(
        "--plot",
        metavar="PICTURE",
        help="also draw the colour axes, and the colours before and after whitening",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1, most=256),
        default=cores(),
        metavar="N",
        help="processes that decode pictures (default: one a core, %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def parse_arguments(arguments=None):
    args = build_parser().parse_args(arguments)
    if args.plot:
        check_writable(args.plot)
    return args


def main(arguments=None):
    args = parse_arguments(arguments)
    paths = list_images(args.pictures)
    if args.sample and args.sample < len(paths):
        drawn = np.random.default_rng(args.seed).choice(len(paths), args.sample, replace=False)
        paths = [paths[i] for i in sorted(drawn)]
    samples, problems = [], []
    result = combine(measure(paths, args, samples, problems), args.pooled)
    print_statistics(result)
    if args.output:
        save_matrix(args.output, result)
        log(f"saved {args.output}: dream.py --decorrelate {args.output}", args.quiet)
    if args.plot:
        write_image(args.plot, plots.color_axes(result.mean, result.matrix, np.concatenate(samples)))
        log(f"saved {args.plot}", args.quiet)
    return 1 if problems else 0


def list_images(names):
    paths = []
    for name in names:
        if not os.path.exists(name):
            raise UserError(f"{name}: no such file or folder")
        found = find_images(name) if os.path.isdir(name) else [name]
        if not found:
            raise UserError(f"{name}: no pictures in it")
        paths += found
    return list(dict.fromkeys(paths))


def measure(paths, args, samples, problems):
    """Yield the moments of each image that can be read, and print a line about each other one.

    With --plot, PLOT_PIXELS random pixels, as many of each image, are added to the list `samples`. The lines printed
    are added to `problems`.
    """
    bounds = [PLOT_PIXELS * i // len(paths) for i in range(len(paths) + 1)]
    with progress(len(paths), args.quiet, unit="picture") as bar:
        for i, (problem, moments, pixels) in enumerate(read_moments(paths, args.workers)):
            bar.update()
            if problem:
                problems.append(problem)
                bar.write(f"{' '.join(problem.split())}; it is left out", file=sys.stderr)
                continue
            if args.plot:
                drawn = np.random.default_rng((args.seed, i)).integers(len(pixels), size=bounds[i + 1] - bounds[i])
                samples.append(pixels[drawn])
            yield moments


def print_statistics(result):
    matrix = result.matrix
    norm = np.linalg.norm(matrix, axis=0).max()
    error = np.abs(matrix @ matrix.T - result.covariance).max()
    kind = "pooled, about the common mean" if result.pooled else "within pictures, each about its own mean"
    print(f"{result.count:,} pictures\n")
    print(f"{'RGB':14}{'red':>10}{'green':>10}{'blue':>10}")
    for name, values in (("mean", result.mean), ("std", result.std)):
        print(f"{name:5}{'0..1':9}" + "".join(f"{value:10.5f}" for value in values))
        print(f"{'':5}{'0..255':9}" + "".join(f"{value * 255:10.3f}" for value in values))
    print_square(f"covariance, 0..1, {kind}", result.covariance)
    print_square("correlation", result.correlation, 4)
    print_square(f"M: principal colour axes as columns; M M^T = covariance within {error:.0e}", matrix)
    print_square(f"M / {norm:.6f}, its largest column norm (lucid's scaling)", normalize_matrix(matrix))
    print("\nready to paste, RGB, 0..1:")
    for name, value in (("mean", result.mean), ("std", result.std), ("matrix", matrix)):
        print(f"{name} = {np.round(value, 6).tolist()}")


def print_square(title, matrix, digits=6):
    print(f"\n{title}")
    for name, row in zip(("red", "green", "blue"), matrix, strict=True):
        print(f"{name:14}" + "".join(f"{value:10.{digits}f}" for value in row))


if __name__ == "__main__":
    cli.run(main)
