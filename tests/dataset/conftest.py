import numpy as np
import pytest

from dataset.images import write_image


@pytest.fixture
def tree(tmp_path):
    """Two classes of 12 and 6 pictures whose red level is their number: 0, 10, 20, ..."""
    for number in range(18):
        path = tmp_path / "set" / ("ant" if number < 12 else "bee") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.full((16, 16, 3), (10 * number, 128, 255), np.float32))
    return tmp_path / "set"
