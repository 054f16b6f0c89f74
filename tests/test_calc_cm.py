"""calc_cm.py: the statistics against plain numpy, its file, and its command line."""

import subprocess
import sys

from models import color_statistics

import numpy as np
import pytest
from conftest import ROOT

import calc_cm
from dataset.cli import UserError
from dataset.color import load_matrix, normalize_matrix
from dataset.images import read_image, write_image


def colourful(seed, height, width):
    """Correlated channels, as in photographs, in whole levels."""
    rng = np.random.default_rng(seed)
    mix = rng.uniform(0, 1, (3, 3)) + np.array([1, 0.9, 0.7])
    pixels = rng.normal(0, 20, (height, width, 3)) @ mix + rng.uniform(60, 180, 3)
    return np.clip(np.rint(pixels), 0, 255).astype(np.float32)


def run(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "calc_cm.py", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def folder(tmp_path):
    for seed in range(4):
        path = tmp_path / "set" / ("a" if seed % 2 else "b") / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, colourful(seed, 20 + seed, 30))
    return tmp_path / "set"


def expected(images):
    """Mean, std, covariance within pictures and pooled, in numpy's own words: each picture weighs the same."""
    images = [image.reshape(-1, 3).astype(np.float64) / 255 for image in images]
    weights = np.concatenate([np.full(len(image), 1 / len(image)) for image in images])
    everything = np.concatenate(images)
    mean = np.average(everything, axis=0, weights=weights)
    std = np.sqrt(np.average((everything - mean) ** 2, axis=0, weights=weights))
    within = np.mean([np.cov(image.T) for image in images], axis=0)
    pooled = np.cov(everything.T, aweights=weights, ddof=0)
    return mean, std, within, pooled


def test_statistics_agree_with_numpy():
    images = [colourful(seed, 15 + seed, 22) for seed in range(5)]
    mean, std, within, pooled = expected(images)
    result = color_statistics.statistics(iter(images))
    assert result.count == 5
    for found, wanted in ((result.mean, mean), (result.std, std), (result.covariance, within)):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(color_statistics.statistics(images, pooled=True).covariance, pooled, rtol=0, atol=1e-12)
    deviation = np.sqrt(np.diag(within))
    np.testing.assert_allclose(result.correlation, within / deviation / deviation[:, None], atol=1e-12)


def test_large_pictures_are_summed_in_blocks(monkeypatch):
    image = colourful(0, 40, 50)
    wanted = color_statistics.statistics([image])
    monkeypatch.setattr(color_statistics, "BLOCK", 7)
    np.testing.assert_allclose(color_statistics.statistics([image]).covariance, wanted.covariance, rtol=1e-12)


def test_sums_are_exact():
    """Where the mean's square and the square's mean have all but their last digits in common."""
    image = np.full((1000, 1001, 3), 255, np.uint8)
    image[0, 0] = 254
    count = image.shape[0] * image.shape[1]
    _, mean, scatter = color_statistics.image_moments(image)
    assert mean.tolist() == [(255 * count - 1) / (255 * count)] * 3
    np.testing.assert_allclose(scatter, np.full((3, 3), (count - 1) / count / 255**2), rtol=1e-15)


def test_the_matrix_is_a_root_of_the_covariance_with_orthogonal_columns_longest_first():
    covariance = color_statistics.statistics([colourful(1, 30, 30)]).covariance
    matrix = color_statistics.color_matrix(covariance)
    np.testing.assert_allclose(matrix @ matrix.T, covariance, atol=1e-15)
    gram = matrix.T @ matrix
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-15)
    assert (np.diff(np.diag(gram)) < 0).all()
    assert (matrix[0] > 0).all()
    np.testing.assert_allclose(color_statistics.color_matrix(covariance.copy()), matrix, rtol=0)
    assert np.linalg.norm(normalize_matrix(matrix), axis=0).max() == pytest.approx(1)


def test_lucids_published_matrix_comes_back_from_its_covariance():
    """color.py's ImageNet matrix, to the two digits it is given in (its columns are only nearly orthogonal)."""
    lucid = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    np.testing.assert_allclose(color_statistics.color_matrix(lucid @ lucid.T), lucid, atol=0.01)


def test_pictures_of_one_colour_and_grey_ones_are_no_trouble():
    flat = color_statistics.statistics([np.full((4, 5, 3), 128, np.float32)])
    assert np.array_equal(flat.matrix, np.zeros((3, 3))) and np.isfinite(normalize_matrix(flat.matrix)).all()
    assert np.isfinite(flat.correlation).all()
    grey = color_statistics.statistics([np.repeat(colourful(0, 9, 9)[:, :, :1], 3, axis=2)])
    np.testing.assert_allclose(grey.matrix @ grey.matrix.T, grey.covariance, atol=1e-15)
    assert color_statistics.statistics([np.zeros((1, 1, 3))]).count == 1
    with pytest.raises(UserError, match="no picture"):
        color_statistics.statistics([])


def test_the_file_comes_back(tmp_path):
    result = color_statistics.statistics([colourful(0, 12, 12)])
    calc_cm.save_matrix(tmp_path / "x_cm.npz", result)
    matrix = load_matrix(tmp_path / "x_cm.npz")
    assert matrix.dtype == np.float64 and np.array_equal(matrix, result.matrix)
    with np.load(tmp_path / "x_cm.npz", allow_pickle=False) as file:
        assert np.array_equal(file["mean"], result.mean) and file["count"] == 1 and file["pooled"] == 0


def test_other_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", weights=np.eye(3))
    np.savez(tmp_path / "pickled.npz", matrix=np.array([{}], object))
    np.save(tmp_path / "array.npy", np.eye(3))
    for name in ("text.npz", "empty.npz", "other.npz", "pickled.npz", "array.npy"):
        with pytest.raises(UserError, match="not a colour matrix"):
            load_matrix(tmp_path / name)
    np.savez(tmp_path / "shape.npz", matrix=np.eye(4))
    with pytest.raises(UserError, match="not 3 x 3"):
        load_matrix(tmp_path / "shape.npz")
    with pytest.raises(UserError, match="no such file"):
        load_matrix(tmp_path / "none.npz")


def test_the_script_prints_saves_and_draws(folder, tmp_path):
    (folder / "a" / "broken.jpg").write_text("no picture")
    done = run(folder, "-o", tmp_path / "x_cm.npz", "--plot", tmp_path / "x.png", "--quiet", "--workers", 2)
    assert done.returncode == 0
    assert done.stderr.strip() == f"{folder}/a/broken.jpg: not a picture that can be read; it is left out"
    images = [read_image(path) for path in sorted(folder.rglob("*.png"))]
    mean, std, within, pooled = expected(images)
    matrix = load_matrix(tmp_path / "x_cm.npz")
    np.testing.assert_allclose(matrix @ matrix.T, within, atol=1e-12)
    pasted = {}
    exec(done.stdout[done.stdout.index("mean = ") :], pasted)
    np.testing.assert_allclose(pasted["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(pasted["std"], std, atol=1e-6)
    np.testing.assert_allclose(pasted["matrix"], matrix, atol=1e-6)
    drawn = read_image(tmp_path / "x.png")
    assert drawn.shape == (620, 880, 3)
    strip = drawn[30, 20:860]
    np.testing.assert_allclose(strip[420], mean * 255, atol=2)
    assert np.ptp(strip[:, 0]) > 2 * matrix[0, 0] * 255

    again = run(folder, "--pooled", "--quiet", "--workers", 1, "-o", tmp_path / "p_cm.npz")
    assert again.returncode == 0
    matrix = load_matrix(tmp_path / "p_cm.npz")
    np.testing.assert_allclose(matrix @ matrix.T, pooled, atol=1e-12)


def test_a_sample_depends_on_its_seed_only(folder):
    def sampled(seed, workers):
        return run(folder, "--sample", 2, "--seed", seed, "--workers", workers, "--quiet").stdout

    assert sampled(0, 1).startswith("2 pictures")
    assert sampled(0, 1) == sampled(0, 2)
    assert sampled(1, 1) != sampled(0, 1) or sampled(2, 1) != sampled(0, 1)


@pytest.mark.parametrize(
    "arguments, status, text",
    [
        (["none"], 1, "none: no such file or folder"),
        (["."], 1, "no pictures in it"),
        (["x.jpg"], 1, "no picture to take statistics of"),
        (["x.jpg", "-o", "x.txt"], 2, "must end in .npz"),
        (["x.jpg", "--plot", "x.txt"], 1, "cannot write .txt"),
        (["x.jpg", "--pooled", "--per-image"], 2, "not allowed with"),
        (["x.jpg", "--sample", "0"], 2, "whole number of at least 1"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, arguments, status, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "x.jpg" in arguments:
        (tmp_path / "x.jpg").write_text("no picture")
    done = run(*arguments, "--quiet")
    assert done.returncode == status
    assert text in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.npz"))
