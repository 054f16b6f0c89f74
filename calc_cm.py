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
(3, 3); `mean`, `std` (3,); and `count`, the number of pictures, `pooled`, 0 or 1. load_matrix() reads it.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.cli import Parser, UserError, log, progress, run
from dataset.color import normalize_matrix
from dataset.files import atomic_write
from dataset.folder import find_pictures
from dataset.images import check_writable, read_picture, write_image
from dataset.workers import Workers, cores

MAX_PIXELS = 128_000_000  # as prepare.py: beyond it a file is taken for a decompression bomb
BLOCK = 1 << 18  # pixels turned to float64 at a time: 6 MB
PLOT_PIXELS = 20_000


@dataclass(frozen=True)
class Statistics:
    """Of `count` pictures, RGB, 0..1, float64: mean and std (3,), covariance (3, 3); see the top of this file."""

    count: int
    mean: np.ndarray
    std: np.ndarray
    covariance: np.ndarray
    pooled: bool

    @property
    def matrix(self):
        return colour_matrix(self.covariance)

    @property
    def correlation(self):
        """Of the channels, (3, 3): the covariance with each channel's variance made 1; 0 where one never varies."""
        deviation = np.sqrt(np.diag(self.covariance))
        deviation = np.where(deviation > 0, deviation, np.inf)
        return self.covariance / np.outer(deviation, deviation)


def statistics(images, pooled=False):
    """Statistics of an iterable of images H x W x 3, 0..255; one is held at a time. UserError if there is none."""
    return combine((moments(image) for image in images), pooled)


def moments(image):
    """(number of pixels, mean (3,), sum of (x - mean)(x - mean)^T (3, 3)) of one image H x W x 3, 0..255, in 0..1."""
    pixels = np.asarray(image).reshape(-1, 3)
    mean = pixels.mean(axis=0, dtype=np.float64) / 255
    scatter = np.zeros((3, 3))
    for start in range(0, len(pixels), BLOCK):
        deviation = pixels[start : start + BLOCK] / np.float64(255) - mean
        scatter += deviation.T @ deviation
    return len(pixels), mean, scatter


def combine(all_moments, pooled=False):
    """Statistics from the moments() of each image."""
    count, mean, outer, within, unbiased = 0, np.zeros(3), np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((3, 3))
    for pixels, own_mean, scatter in all_moments:
        count += 1
        mean += own_mean
        outer += np.outer(own_mean, own_mean)
        within += scatter / pixels
        unbiased += scatter / max(1, pixels - 1)
    if not count:
        raise UserError("no picture to take statistics of")
    mean /= count
    total = within / count + outer / count - np.outer(mean, mean)
    covariance = total if pooled else unbiased / count
    return Statistics(count, mean, np.sqrt(np.maximum(np.diag(total), 0)), covariance, pooled)


def colour_matrix(covariance):
    """M (3, 3) with M M^T = covariance: its principal axes as columns, times their standard deviations."""
    variances, axes = np.linalg.eigh(covariance)
    matrix = (axes * np.sqrt(np.maximum(variances, 0)))[:, ::-1]
    for column in matrix.T:  # an axis has no sign of its own: red positive, or green where there is no red
        leading = column[np.abs(column) > 1e-9 * np.abs(matrix).max()]
        if len(leading) and leading[0] < 0:
            column *= -1
    return matrix


def save_matrix(path, statistics):
    """Write the .npz that load_matrix() reads."""
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


def parse(arguments=None):
    parser = Parser(prog="calc_cm.py", description="Mean, standard deviation and the 3x3 colour matrix of pictures.")
    parser.add_argument(
        "pictures", nargs="+", metavar="FOLDER|PICTURE", help="pictures, or folders with pictures at any depth"
    )
    parser.add_argument(
        "-o", "--output", metavar="NAME_cm.npz", help="save it for dream.py --decorrelate and train_dream.py"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--per-image", action="store_true", help="covariance about each picture's own mean, averaged (the default)"
    )
    kind.add_argument("--pooled", action="store_true", help="covariance of all pixels about the common mean")
    parser.add_argument("--sample", type=int, metavar="N", help="take N pictures at random instead of all")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices")
    parser.add_argument(
        "--plot",
        metavar="PICTURE",
        help="save a picture of the colour axes, and of the colours before and after whitening",
    )
    parser.add_argument(
        "--workers", type=int, default=cores(), help="processes that decode (default: one a core, %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    if options.sample is not None and options.sample < 1:
        parser.error("--sample must be 1 or more")
    if options.seed < 0:
        parser.error("--seed must be 0 or more")
    if not 1 <= options.workers <= 256:
        parser.error("--workers must be 1 to 256")
    if options.output and Path(options.output).suffix != ".npz":
        parser.error(f"--output {options.output}: its name must end in .npz")
    if options.plot:
        check_writable(options.plot)
    return options


def main():
    options = parse()
    paths = list_pictures(options.pictures)
    if options.sample and options.sample < len(paths):
        drawn = np.random.default_rng(options.seed).choice(len(paths), options.sample, replace=False)
        paths = [paths[i] for i in sorted(drawn)]
    colours = [] if options.plot else None
    result = combine(read_all(paths, options, colours), options.pooled)
    print_statistics(result)
    if options.output:
        save_matrix(options.output, result)
        log(f"saved {options.output}: dream.py --decorrelate {options.output}", options.quiet)
    if options.plot:
        write_image(options.plot, plot(result, np.concatenate(colours)))
        log(f"saved {options.plot}", options.quiet)


def list_pictures(names):
    paths = []
    for name in names:
        if not os.path.exists(name):
            raise UserError(f"{name}: no such file or folder")
        found = find_pictures(name) if os.path.isdir(name) else [name]
        if not found:
            raise UserError(f"{name}: no pictures in it")
        paths += found
    return list(dict.fromkeys(paths))


def read_all(paths, options, colours):
    """The moments of each picture that can be read; a line about each other one. A sample of all pixels, as much of
    each picture, goes to the list `colours`, if there is one."""
    bounds = [PLOT_PIXELS * i // len(paths) if options.plot else 0 for i in range(len(paths) + 1)]
    tasks = [(path, bounds[i + 1] - bounds[i], (options.seed, i)) for i, path in enumerate(paths)]
    with (
        Workers("calc_cm:reader", None, min(options.workers, len(paths))) as workers,
        progress(len(paths), options.quiet, unit="picture") as bar,
    ):
        for problem, found, sample in workers.map(tasks):
            bar.update()
            if problem:
                bar.write(f"{problem}; it is left out", file=sys.stderr)
                continue
            if colours is not None:
                colours.append(sample)
            yield found


def reader(_):
    """The workers' function: (path, number of pixels, seed) -> (problem or None, moments, that many random pixels)."""

    def read(task):
        path, number, seed = task
        try:
            image = np.asarray(read_picture(path, MAX_PIXELS))
        except UserError as error:
            return str(error), None, None
        pixels = image.reshape(-1, 3)
        sample = pixels[np.random.default_rng(seed).integers(len(pixels), size=number)]
        return None, moments(image), sample

    return read


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


def plot(result, colours):
    """Float32 image 620 x 880: three strips of the colours along each axis, from -2 to 2 standard deviations about the
    mean; then a sample of pixels (N, 3) in red and blue, and the same whitened, along the first two axes."""
    from PIL import Image, ImageDraw, ImageFont

    sheet = Image.new("RGB", (880, 620), "gainsboro")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    matrix = result.matrix
    share = (matrix**2).sum(axis=0) / max((matrix**2).sum(), 1e-12)
    steps = np.linspace(-2, 2, 840)
    for axis in range(3):
        strip = np.clip(result.mean + steps[:, None] * matrix[:, axis], 0, 1) * 255
        strip = np.broadcast_to(np.rint(strip).astype(np.uint8), (26, 840, 3))
        sheet.paste(Image.fromarray(np.ascontiguousarray(strip)), (20, 24 + 46 * axis))
        text = f"colour axis {axis + 1}, -2 to 2 standard deviations; {share[axis]:.1%} of the variance"
        draw.text((20, 7 + 46 * axis), text, "black", font)

    dots = np.asarray(sheet).copy()
    values = colours / 255
    variances = (matrix**2).sum(axis=0)
    inverse = matrix / np.where(variances > 1e-9, variances, np.inf)  # columns are orthogonal: M^-1 = inverse^T
    whitened = (values - result.mean) @ inverse
    for left, points in ((20, values[:, [0, 2]]), (450, whitened[:, :2] / 8 + 0.5)):
        column = left + np.rint(points[:, 0] * 409).astype(int)
        row = 599 - np.rint(points[:, 1] * 409).astype(int)
        inside = (column >= left) & (column < left + 410) & (row >= 190) & (row < 600)
        dots[row[inside], column[inside]] = colours[inside]
    sheet = Image.fromarray(dots)
    draw = ImageDraw.Draw(sheet)
    for left, text in (
        (20, "before: red to the right, blue upwards, 0..255"),
        (450, "whitened: axes 1 and 2, -4 to 4 standard deviations"),
    ):
        draw.rectangle((left - 1, 189, left + 410, 600), outline="grey")
        draw.text((left, 164), text, "black", font)
    return np.asarray(sheet, np.float32)


if __name__ == "__main__":
    run(main)
