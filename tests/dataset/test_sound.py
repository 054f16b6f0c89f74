"""dataset/sound.py: what is encoded of a track that is not copied."""

import io
from types import SimpleNamespace

import av
import numpy as np

from dataset.sound import EncodedTrack

RATE, HOURS = 48000, 9 * 3600


def test_hours_of_silence_are_a_jump_in_time_and_seconds_are_silence():
    """A damaged film of 4 kB may ask for days of it."""
    packets = []
    with av.open(io.BytesIO(), "w", format="webm") as out:
        stream = out.add_stream("libopus", rate=RATE, layout="mono")
        track = EncodedTrack(stream, RATE, "mono", SimpleNamespace(begin=0, end=None))
        keep = SimpleNamespace(mux=lambda found: packets.append((float(found.pts * found.time_base), found.size)))
        track.go_to(10 * RATE, keep)
        assert len(packets) > 450  # of 20 ms each
        track.go_to(HOURS * RATE, keep)
        assert len(packets) < 510
        track.encode(np.float32(np.sin(np.arange(RATE) / 20))[None], keep)
        track.finish(None, keep)
    assert HOURS + 0.9 < packets[-1][0] < HOURS + 1.1 and len(packets) > 540
