"""Motion from one frame of a video to the next: optical flow, occlusion and scene cuts.

OpenCV's DIS flow (Kroeger et al., 2016), an optional dependency, finds the motion.
"""

import functools

import numpy as np

from dataset.cli import UserError

CUT = 30  # mean grey levels between two frames of a video, above which they belong to two scenes


def need_opencv():
    """Raise UserError where OpenCV is missing."""
    try:
        import cv2  # noqa: F401
    except ImportError:
        raise UserError("--flow needs OpenCV: pip install opencv-python-headless") from None


def is_scene_cut(before, after):
    """Tell whether two frames, H x W x 3, belong to two scenes: they differ even at an eighth of their size."""
    return np.abs(coarse(after) - coarse(before)).mean() > CUT


def scene_starts(images):
    """Return the numbers of the frames that begin a scene, of which the first is 0."""
    starts, before = [], None
    for n, image in enumerate(images):
        if before is None or is_scene_cut(before, image):
            starts.append(n)
        before = image
    return starts


def coarse(image, cell=8):
    """Return the mean grey of cells of cell x cell pixels (fewer at the borders); camera shake hardly changes it."""
    grey = image.mean(2)
    rows, columns = (np.arange(0, side, cell) for side in grey.shape)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, 0), columns, 1)
    return sums / np.outer(np.diff([*rows, grey.shape[0]]), np.diff([*columns, grey.shape[1]]))


def warp(layer, before, after):
    """Return `layer` (H x W x 3) moved as the image moved from frame `before` to frame `after`, 0 where `after` shows
    what `before` did not.

    Occlusions are where flow forth and back does not return to its start; the tolerance is that of Sundaram, Brox
    and Keutzer, "Dense point trajectories by GPU-accelerated large displacement optical flow", 2010.
    """
    import cv2

    back, forth = flow(after, before), flow(before, after)
    rows, columns = np.mgrid[: layer.shape[0], : layer.shape[1]].astype(np.float32)
    x, y = columns + back[..., 0], rows + back[..., 1]  # where each pixel of `after` was in `before`
    forth = cv2.remap(forth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gap = ((back + forth) ** 2).sum(2)
    seen = gap <= 0.01 * ((back**2).sum(2) + (forth**2).sum(2)) + 0.5
    seen &= (x > -1) & (y > -1) & (x < layer.shape[1]) & (y < layer.shape[0])
    seen = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), 1)[..., None]  # or the border would show in the dream
    return seen * cv2.remap(layer, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def flow(a, b):
    """Return the optical flow from frame `a` to frame `b`, H x W x 2: by how many pixels each moves right and down."""
    import cv2

    grey = [cv2.cvtColor(image.astype(np.uint8), cv2.COLOR_RGB2GRAY) for image in (a, b)]
    return finder().calc(*grey, None)


@functools.cache
def finder():
    """Return the one DIS object of this process."""
    import cv2

    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
