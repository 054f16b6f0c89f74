"""The gradient before a step: normalised, smoothed, its colors decorrelated."""

from models.dreaming import gradients
from models.dreaming.options import settings

import mlx.core as mx
import numpy as np
import pytest

import dream
from dataset.color import normalize_matrix


def noise(*shape):
    return mx.array(np.random.default_rng(1).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("shape", [(32, 48, 3), (31, 45, 3), (5, 3, 3)])
def test_the_pyramid_can_be_put_together_again(shape, monkeypatch):
    monkeypatch.setattr(gradients, "unit_rms", lambda x: x)
    g = noise(*shape)
    assert np.allclose(gradients.laplacian_normalise(g, 4), g, atol=1e-5)


def test_lapnorm_lifts_the_coarse_bands():
    y = mx.arange(64) / 64 * 2 * np.pi
    fine, coarse = mx.cos(16 * y), mx.cos(y) / 50
    g = mx.broadcast_to((fine + coarse)[:, None, None], (64, 64, 3))

    def amplitudes(g):
        spectrum = np.abs(np.fft.rfft(np.array(g)[:, 32, 0]))
        return spectrum[1] / spectrum[16]

    assert amplitudes(gradients.laplacian_normalise(g, 4)) > 20 * amplitudes(g)


def test_smoothing_keeps_the_mean_and_takes_the_grain():
    g = noise(64, 64, 3)
    blurred = np.array(gradients.cascade_gaussian(g, 2.0))
    assert blurred.std() < 0.4 * np.array(g).std()
    flat = np.array(gradients.cascade_gaussian(mx.ones((64, 64, 3)), 2.0))
    assert np.allclose(flat[20:-20, 20:-20], 1, atol=1e-5)


def test_smoothing_widens_with_the_steps():
    shape = gradients.gradient_transform(smooth=0.5)
    g = noise(48, 48, 3)
    assert np.array(shape(g, 9, 10)).std() < 0.8 * np.array(shape(g, 0, 10)).std()


def test_decorrelation_is_a_step_in_decorrelated_colour():
    matrix = normalize_matrix(gradients.IMAGENET_COLORS)
    expected = [[1.0, 0.914, 0.794], [0.914, 1.0, 0.909], [0.794, 0.909, 1.0]]  # lucid's matrix, as correlations
    product = gradients.color_product(gradients.IMAGENET_COLORS)
    scale = np.sqrt(np.diag(product))
    assert np.allclose(product / np.outer(scale, scale), expected, atol=2e-3)
    t = np.random.default_rng(0).normal(size=3)
    g = np.array([0.3, -1.0, 2.0])  # of a linear objective: the change of the pixel by a step in t along its gradient
    assert np.allclose(matrix @ (t + matrix.T @ g) - matrix @ t, product @ g, atol=1e-6)


def test_whose_matrix_decorrelates(net, monkeypatch, tmp_path):
    own = [[1.0, 0, 0], [0, 0.5, 0], [0, 0, 0.25]]
    assert gradients.color_matrix(net, None) is None
    assert gradients.color_matrix(net, True) == gradients.IMAGENET_COLORS
    monkeypatch.setattr(net.metadata, "color_matrix", own)
    assert gradients.color_matrix(net, True) == own
    np.savez(tmp_path / "cm.npz", matrix=np.array(own) * 2)
    args = dream.build_parser().parse_args(["x.png", "--decorrelate", str(tmp_path / "cm.npz")])
    assert np.array_equal(settings(args)["decorrelate"], np.array(own) * 2)
