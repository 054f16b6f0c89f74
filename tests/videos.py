"""Videos that tests write, whole and damaged."""

from fractions import Fraction

import av
import numpy as np
from conftest import smooth_image


def write_video(path, levels, rate=25, codec="libx264", pixels="yuv420p", tags=(), sound=None, **how):
    """Write uint8 frames H x W x 3, and `sound` {name of a track: {"codec", "rate", "layout", "metadata", ...}}.

    tags: (colorspace, primaries, transfer, range). how: "matrix", "shape", "options", "format".
    """
    frames = [levels] if isinstance(levels, np.ndarray) else levels
    with av.open(f"file:{path}", "w", format=how.get("format")) as out:
        video = out.add_stream(codec, rate=rate, options=how.get("options", {"crf": "8"} if "264" in codec else {}))
        video.height, video.width, video.pix_fmt = *frames[0].shape[:2], pixels
        context = video.codec_context
        if tags:
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags
        if "shape" in how:
            context.sample_aspect_ratio = how["shape"]
        if "matrix" in how:
            video.set_display_matrix(how["matrix"])
        tracks = [add_tone(out, len(frames) / rate, **track) for track in sound or []]
        for n, frame in enumerate(frames):
            frame = frame if isinstance(frame, av.VideoFrame) else av.VideoFrame.from_ndarray(frame, "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, rate)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        for track, samples in tracks:
            for part in samples:
                out.mux(track.encode(part))
            out.mux(track.encode())
    return path


def add_tone(out, seconds, codec="aac", rate=48000, layout="mono", pixels="fltp", language=None, disposition=None):
    """Add a track with a tone that rises from 300 Hz; return (stream, its frames of samples)."""
    track = out.add_stream(codec, rate=rate, layout=layout)
    if language:
        track.metadata["language"] = language
    if disposition is not None:
        track.disposition = disposition
    t = np.arange(int(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * (300 + 900 * t) * t)
    channels = av.AudioLayout(layout).nb_channels
    if pixels == "s16":
        samples = np.repeat(np.int16(32767 * tone)[:, None], channels, 1).reshape(1, -1)
    else:
        samples = np.repeat(np.float32(tone)[None], channels, 0)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), pixels, layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return track, [frame]


def flat_frame(rgb, height=48, width=64, frames=3):
    """Return frames of one color."""
    return [np.full((height, width, 3), rgb, np.uint8)] * frames


def moving_frames(frames, height=48, width=64):
    """Return frames of a smooth image that moves."""
    world = smooth_image(height + frames, width + 2 * frames)
    return [np.ascontiguousarray(world[i : i + height, 2 * i : 2 * i + width]) for i in reversed(range(frames))]


def damage(path, target, kind, number, length=60):
    """Copy a video with the bytes of one packet, of the pictures or the sound, overwritten."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        packet = [p for p in container.demux(stream) if p.size][number]
        data[packet.pos : packet.pos + min(length, packet.size)] = b"\xff" * min(length, packet.size)
    target.write_bytes(data)
    return target
