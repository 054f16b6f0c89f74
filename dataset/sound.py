"""The sound of a video, put into another: packet by packet as it is, or encoded anew where the container needs that."""

import io
import math
from fractions import Fraction

import numpy as np

from dataset.container import (
    Clock,
    Decoder,
    choose_stream,
    is_unnamed,
    jumping_format,
    open_container,
    packets,
    reason_of,
    safe_layout,
)
from dataset.video import seek

TOLERANCE = Fraction(1, 20)  # seconds by which sound may come early or late before it is set right
CHUNK = 48000  # samples of silence that are encoded at a time
SILENCE = 600  # seconds of it at most: a few damaged bytes may ask for days, which a jump in time says as well
TRIAL = 8  # packets that are copied to see whether a container takes them
KEPT_METADATA = ("language", "title")
# layouts that the encoders take, by their channels; FFmpeg tells no list of them
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
# what channels without a layout are taken for
GUESSED_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
OPUS_RATE = 48000  # Hz; whatever goes in, it is what comes out


def add_sound(video, out, encoder, tell):
    """Add the sound tracks of `video` to the container `out`, before its header is written.

    encoder: of what cannot be copied. tell: called with a line about each track that cannot be kept.
    Returns {index in the source: Track}.
    """
    tracks = {}
    with open_container(video.path) as source:
        streams = [stream for stream in source.streams.audio if stream.index in video.sound]
        for number, stream in enumerate(streams, 1):
            try:
                added = add_track(video, source, stream, out, encoder)
            except Exception as error:  # what an encoder may raise is not ours to list
                which = f"sound track {number}" if len(streams) > 1 else "sound"
                tell(f"{video.path}: its {which} is left out: {reason_of(error)}")
                continue
            tracks[stream.index] = added
            metadata = {name: stream.metadata[name] for name in KEPT_METADATA if name in stream.metadata}
            added.stream.metadata.update(metadata)
            added.stream.disposition = stream.disposition
        keep_default(source, tracks)
    return tracks


def keep_default(source, tracks):
    """Make the first track the one that is played where the one that was is left out."""
    from av.stream import Disposition

    defaults = [stream.index for stream in source.streams.audio if stream.disposition & Disposition.default]
    if defaults and tracks and not any(index in tracks for index in defaults):
        first = next(iter(tracks.values())).stream
        first.disposition = first.disposition | Disposition.default


def add_track(video, source, stream, out, encoder):
    """Return the Track for one stream of the source, copied if possible."""
    codec = stream.codec_context.codec.canonical_name
    # .mp4 takes raw samples, too, but few players play them
    if not codec.startswith("pcm") and can_copy(video.path, stream, out.format.name):
        return CopiedTrack(out.add_stream_from_template(stream), video)
    rate, layout = encoder_settings(encoder, stream.codec_context)
    return EncodedTrack(out.add_stream(encoder, rate=rate, layout=layout), rate, layout, video)


def can_copy(path, stream, container_format):
    """Tell whether a container takes the packets of a stream as they are: tried in memory, with its first ones."""
    import av

    try:
        with open_container(path) as source, av.open(io.BytesIO(), "w", format=container_format) as out:
            original = source.streams[stream.index]
            copied, clock, last = out.add_stream_from_template(original), Clock(source), -math.inf
            out.start_encoding()
            taken = 0
            for packet in packets(source, [original]):
                clock.correct(packet)
                if packet.pts is None or packet.pts <= last:
                    continue
                last = packet.dts = packet.pts
                packet.stream = copied
                out.mux(packet)
                taken += 1
                if taken == TRIAL:
                    break
    except Exception:  # what a muxer may raise is not ours to list
        return False
    return True


def encoder_settings(encoder, context):
    """Return (rate in Hz, layout) that the encoder takes, nearest to those of a decoder. Raises where it takes none."""
    import av

    codec = av.Codec(encoder, "w")
    rates = [OPUS_RATE] if encoder == "libopus" else codec.audio_rates or [context.sample_rate]
    rate = min(rates, key=lambda rate: abs(math.log(rate / max(1, context.sample_rate))))
    channels = source_layout(safe_layout(context)).nb_channels
    nearest = sorted(LAYOUTS, key=lambda number: (abs(number - channels), number))
    for number in nearest:
        try:
            trial = av.CodecContext.create(encoder, "w")
            trial.sample_rate, trial.layout, trial.format = rate, LAYOUTS[number], codec.audio_formats[0].name
            trial.time_base = Fraction(1, rate)
            trial.open()
        except Exception as error:  # what an encoder may raise is not ours to list
            problem = error
        else:
            return rate, LAYOUTS[number]
    raise problem


def source_layout(layout):
    """Return the AudioLayout that sound is taken to have: by its channels where it names none that can be mixed."""
    import av

    if "ambisonic" in layout.name:
        return av.AudioLayout("mono")  # its first channel is what a single microphone hears
    if layout.nb_channels > max(GUESSED_LAYOUTS):
        return av.AudioLayout("stereo")  # of the first channels
    return av.AudioLayout(GUESSED_LAYOUTS[layout.nb_channels]) if is_unnamed(layout) else layout


# --- Tracks ---


class CopiedTrack:
    """A sound track whose packets are copied as they are."""

    def __init__(self, stream, video):
        self.stream, self.video, self.last = stream, video, -math.inf
        self.decoder = Decoder()

    def add(self, source, packet, time, out):
        """Take a packet of the source shown at `time` seconds by its clock."""
        video = self.video
        if (video.cut and time < video.begin) or (video.end is not None and time >= video.end):
            return
        if video.damaged_sound:
            self.decoder.decode(source, packet)
            if self.decoder.damaged[source.index]:
                self.decoder.damaged.clear()
                return
        packet.pts -= round(video.begin / packet.time_base)
        if packet.pts <= self.last:
            return  # no player can play two at a time
        self.last = packet.dts = packet.pts  # sound is played in the order of its packets
        packet.stream = self.stream
        mux_sound(out, packet)

    def finish(self, source, out):
        """Put what is left into the container."""


class EncodedTrack:
    """A sound track that is decoded, brought to the rate and layout of an encoder, and encoded anew.

    What is missing in the source, or was damaged, is silence, so that the rest stays in step with the pictures.
    """

    def __init__(self, stream, rate, layout, video):
        self.stream, self.rate, self.layout, self.video = stream, rate, layout, video
        self.decoder = Decoder()
        self.resampler = None
        self.expected = None  # second at which the next samples should begin
        self.written = self.skip = 0  # samples
        end = math.inf if video.end is None else round((video.end - video.begin) * rate)
        self.length = end

    def add(self, source, packet, time, out):
        """Take a packet of the source shown at `time` seconds by its clock."""
        for frame in self.decoder.decode(source, packet):
            self.add_frame(frame, out)

    def finish(self, source, out):
        """Put what is left in decoder, resampler and encoder into the container."""
        for frame in self.decoder.decode(source, None):
            self.add_frame(frame, out)
        self.end_resampling(out)
        if self.written:
            for packet in self.stream.encode(None):
                mux_sound(out, packet)

    def add_frame(self, frame, out):
        """Resample and encode a decoded frame."""
        import av

        samples, rate = frame.samples, frame.sample_rate
        begin = self.expected if frame.pts is None else frame.pts * frame.time_base - self.video.begin
        begin = begin or Fraction(0)
        if self.expected is None or abs(begin - self.expected) > TOLERANCE:
            self.end_resampling(out)
            self.go_to(round(begin * self.rate), out)
        self.expected = begin + Fraction(samples, rate)
        frame = with_layout(frame)
        frame.pts, frame.time_base = None, Fraction(1, rate)
        signature = (rate, frame.layout.name, frame.format.name)
        if self.resampler is None or self.resampler[0] != signature:  # some tracks change on the way
            self.end_resampling(out)
            self.resampler = signature, av.AudioResampler("fltp", self.layout, self.rate)
        for part in self.resampler[1].resample(frame):
            self.encode(part.to_ndarray(), out)

    def end_resampling(self, out):
        """Encode what is left in the resampler, and forget it."""
        if self.resampler is not None:
            _, resampler = self.resampler
            self.resampler = None
            for part in resampler.resample(None):
                if part is not None:
                    self.encode(part.to_ndarray(), out)

    def go_to(self, position, out):
        """Fill up with silence to a position in samples, or skip samples that come for what is over."""
        self.skip = max(0, self.written - position)
        position = min(position, self.length)
        channels = self.stream.codec_context.layout.nb_channels
        if position - self.written > SILENCE * self.rate:
            self.written = position
        while self.written < position:
            self.encode(np.zeros((channels, min(CHUNK, position - self.written)), np.float32), out)

    def encode(self, samples, out):
        """Encode float32 channels x samples."""
        import av

        dropped = min(self.skip, samples.shape[1])
        self.skip -= dropped
        samples = samples[:, dropped : dropped + max(0, min(samples.shape[1], self.length - self.written))]
        if not samples.shape[1]:
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), "fltp", self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.rate, self.written, Fraction(1, self.rate)
        self.written += samples.shape[1]
        for packet in self.stream.encode(frame):
            mux_sound(out, packet)


def with_layout(frame):
    """Return a decoded frame with a layout that can be mixed to another, of all its channels or the first ones."""
    import av

    layout = source_layout(frame.layout)
    if layout.name == frame.layout.name:
        return frame
    samples, channels = frame.to_ndarray(), frame.layout.nb_channels
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    names, wanted = ([channel.name for channel in one.channels] for one in (frame.layout, layout))
    order = [names.index(name) for name in wanted] if set(wanted) <= set(names) else range(len(wanted))
    samples = samples[list(order)]
    if not frame.format.is_planar:
        samples = samples.T.reshape(1, -1)
    new = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), frame.format.name, layout.name)
    new.sample_rate = frame.sample_rate
    return new


def mux_sound(out, packet):
    """Put a packet of sound into a container; one that it does not take is left out, unless the disk is full, say."""
    try:
        out.mux(packet)
    except OSError:
        raise
    except Exception:  # what a muxer may raise is not ours to list
        return


def copy_sound(video, tracks, out):
    """Put the sound of `video` into the container `out` and yield, packet by packet, the second reached."""
    import av

    with open_container(video.path) as source:
        clock = Clock(source)
        if video.cut and not jumping_format(source):
            seek(source, int(video.begin * av.time_base))
        streams = {stream.index: stream for stream in (choose_stream(video.path, source), *source.streams.audio)}
        for packet in packets(source, list(streams.values())):  # the clock is that of the pictures, too
            clock.correct(packet)
            track = tracks.get(packet.stream_index)
            if track is None or packet.pts is None:
                continue
            time = packet.pts * packet.time_base
            if video.end is not None and time >= video.end + 1:
                continue
            track.add(streams[packet.stream_index], packet, time, out)
            yield time - video.begin
        for index, track in tracks.items():
            track.finish(streams[index], out)
