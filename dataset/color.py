"""Colors: the weights of brightness, and the 3x3 matrix of a set's colors, its file and its scaling."""

import os

import numpy as np

from dataset.cli import UserError
from dataset.npz import npy_entries

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of R, G, B: brightness as Rec. 601 weighs it


def normalize_matrix(matrix):
    """Divide a color matrix by its largest column norm: lucid's scaling. Zeros stay zeros."""
    matrix = np.asarray(matrix, np.float64)
    return matrix / (np.linalg.norm(matrix, axis=0).max() or 1)


def load_matrix(path):
    """Return M (3, 3) float64, RGB, 0..1, with M M^T the covariance of colors, from a file that calc_cm.py wrote.

    Raises UserError where there is no such file, or another kind of file.
    """
    if not os.path.exists(path):
        raise UserError(f"{path}: no such file")
    try:
        matrix = np.asarray(dict(npy_entries(path, "matrix".__eq__))["matrix"], np.float64)
    except (UserError, KeyError):  # a zip without that entry, a .npy, a text
        raise UserError(f"{path}: not a colour matrix; make one with calc_cm.py FOLDER -o NAME_cm.npz") from None
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise UserError(f"{path}: its matrix is not 3 x 3 finite numbers; make it anew with calc_cm.py")
    return matrix
