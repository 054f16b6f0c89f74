"""Videos as phones, cameras and other programs write them: what is read of them, and what comes out."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import smooth_image
from PIL import Image
from videos import damage, flat_frame, moving_frames, write_video

from dataset.cli import UserError
from dataset.container import is_unnamed
from dataset.sound import encoder_settings
from dataset.video import Timing, is_video, read_frames, read_video
from dataset.video_color import HLG, PQ, nits_to_pq, tone_map
from dataset.video_writer import fit_ticks, has_sound, keeps_pixel_shape, thinned, video_writer


def copy(source, target):
    """Read a video and write it again, without a dream; returns the notes."""
    video = read_video(source)
    images = list(read_frames(video, square=not keeps_pixel_shape(target)))
    notes = list(video.notes)
    sound = video if has_sound(target) else None
    size = images[0].shape[:2]
    with video_writer(target, video.timing, size, source=sound, tell=notes.append) as write:
        for image in images:
            write(np.rint(image).clip(0, 255).astype(np.uint8))
    return notes


def tracks_of(path):
    with av.open(str(path)) as container:
        return [
            (track.codec_context.codec.canonical_name, track.codec_context.sample_rate, track.codec_context.layout.name)
            for track in container.streams.audio
        ]


def loudness(path, track=0):
    """Return (seconds of sound, root mean square of each tenth of a second)."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[track]
        resampler, parts = av.AudioResampler("fltp", "mono", 48000), []
        for frame in container.decode(stream):
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    wave = np.concatenate(parts)
    tenths = wave[: len(wave) // 4800 * 4800].reshape(-1, 4800)
    return len(wave) / 48000, np.sqrt((tenths**2).mean(1))


# --- What a file says of itself ---


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("flips", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_display_matrices_turn_and_mirror(here, turned, flips):
    image = smooth_image(48, 64)
    one, two = (65536 * sign for sign in flips)
    matrix = [0, one, 0, two, 0, 0, 0, 0, 1 << 30] if turned else [one, 0, 0, 0, two, 0, 0, 0, 1 << 30]
    write_video(here / "a.mp4", [image] * 2, matrix=matrix)
    # (x, y) of the image is shown at (ax + cy, bx + dy): in a matrix that turns, x grows with y, and y with x
    shown = image.swapaxes(0, 1) if turned else image
    right, down = (two, one) if turned else (one, two)
    shown = shown[:, :: 1 if right > 0 else -1][:: 1 if down > 0 else -1]
    for name in ("a.mp4", "b.mp4", "b.webm"):
        if name != "a.mp4":
            copy("a.mp4", name)
        video = read_video(name)
        assert video.size == shown.shape[:2]
        assert np.abs(next(read_frames(video)) - shown).mean() < 8


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".webp", ".gif", ""])
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square(here, suffix, turned):
    matrix = {"matrix": [0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30]} if turned else {}
    write_video(here / "a.mp4", moving_frames(2), shape=Fraction(3, 2), **matrix)
    target = f"b{suffix}"
    copy("a.mp4", target)
    if suffix == ".mp4":
        video = read_video(target)
        height, width = video.size
        width *= video.pixel_shape
    else:
        first = Image.open(f"{target}/000000.png") if not suffix else None
        height, width = first.size[::-1] if first else read_video(target).size
    assert width / height == pytest.approx(48 / 96 if turned else 96 / 48, abs=0.03)


def test_hdr_is_tone_mapped():
    def level(signal, transfer):
        return tone_map(np.full((1, 1, 3), round(65535 * float(signal)), np.uint16), transfer)[0, 0]

    assert 230 <= level(nits_to_pq(203), PQ).min() <= level(nits_to_pq(203), PQ).max() <= 245
    assert 230 <= level(0.75, HLG).min() <= 245
    ramp = [level(nits_to_pq(nits), PQ)[0] for nits in (0, 1, 26, 100, 203, 400, 700, 1000)]
    assert ramp[0] < 1 and np.all(np.diff(ramp) > 0.2) and ramp[-1] <= 255.01
    assert 105 < ramp[2] < 130  # grey of 18 %
    assert level(nits_to_pq(10000), PQ)[0] == pytest.approx(255, abs=0.01)


@pytest.mark.parametrize("transfer, signal, name", [(PQ, 0.58069, "PQ"), (HLG, 0.75, "HLG")])
def test_an_hdr_video_is_told_and_its_white_is_white(here, transfer, signal, name):
    code = np.full((48, 64, 3), round(65535 * signal), np.uint16)
    frames = []
    for _ in range(2):
        frame = av.VideoFrame.from_ndarray(code, "rgb48le")
        frames.append(frame.reformat(format="yuv420p10le", dst_colorspace="BT2020", dst_color_range="MPEG"))

    class Sized(list):
        shape = (48, 64)

    with av.open("a.mkv", "w") as out:
        stream = out.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, transfer, 1
        for n, frame in enumerate(frames):
            frame.pts, frame.time_base = n, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    video = read_video("a.mkv")
    image = next(read_frames(video))
    assert image.min() >= 230 and image.max() <= 245
    assert [note for note in video.notes if f"HDR ({name})" in note]


@pytest.mark.parametrize("size, matrix", [((720, 1280), "ITU709"), ((240, 320), "ITU601")])
def test_untagged_videos_have_the_matrix_that_players_guess(here, size, matrix):
    frames = []
    for _ in range(2):
        frame = av.VideoFrame.from_ndarray(np.full((*size, 3), (32, 192, 32), np.uint8), "rgb24")
        frames.append(frame.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range="MPEG"))
    with av.open("a.mp4", "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        for n, frame in enumerate(frames):
            frame.pts, frame.time_base, frame.colorspace = n, Fraction(1, 25), 2
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    image = next(read_frames(read_video("a.mp4")))
    assert np.abs(image.mean((0, 1)) - (32, 192, 32)).max() < 4


def test_transparent_frames_are_shown_over_white(here):
    frame = np.zeros((48, 64, 4), np.uint8)
    frame[:, :32] = (255, 0, 255, 0)
    with av.open("a.mov", "w") as out:
        stream = out.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgba")))
        out.mux(stream.encode())
    assert next(read_frames(read_video("a.mov")))[:, :32].min() == 255


def test_languages_and_the_default_track_are_kept(here):
    from av.stream import Disposition

    tracks = [{"language": "deu"}, {"language": "eng", "disposition": Disposition.default}]
    write_video(here / "a.mp4", moving_frames(8), sound=tracks)
    for name in ("b.mp4", "b.webm"):
        copy("a.mp4", name)
        with av.open(name) as container:
            found = [
                (t.metadata["language"], bool(t.disposition & Disposition.default)) for t in container.streams.audio
            ]
        assert found == [("deu", False), ("eng", True)]


# --- Damage ---


def test_damaged_packets_of_pictures_are_skipped_and_told(here):
    write_video(here / "a.mov", moving_frames(10), codec="mjpeg", pixels="yuvj420p")
    damage(here / "a.mov", here / "b.mov", "video", 4, 10**6)
    video = read_video("b.mov")
    assert len(video.timing.times) == 9
    assert video.notes == ("b.mov: 1 damaged packet of its pictures is left out",)
    assert [float(time * video.timing.base * 25) for time in video.timing.times] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert len(list(read_frames(video))) == 9


def test_damaged_packets_of_sound_become_silence(here):
    write_video(here / "a.mp4", moving_frames(25), sound=[{}])
    damage(here / "a.mp4", here / "b.mp4", "audio", 20)
    for name in ("c.mp4", "c.webm"):
        notes = copy("b.mp4", name)
        assert notes == ["b.mp4: its sound: 1 damaged packet is left out"]
    seconds, loud = loudness("c.webm")
    assert seconds == pytest.approx(1, abs=0.06)  # in step
    assert loud[:4].min() > 0.3 and loud[4] < 0.347 and loud[5:9].min() > 0.3


def test_sound_that_cannot_be_decoded_at_all_is_left_out(here):
    write_video(here / "a.mp4", moving_frames(4), sound=[{"language": "deu"}, {"language": "eng"}])
    data = (here / "a.mp4").read_bytes()
    for old, new in ((b"mp4a", b"apac"), (b"esds", b"dapa")):  # as iPhones mark their second track
        at = data.rindex(old)
        data = data[:at] + new + data[at + 4 :]
    (here / "b.mp4").write_bytes(data)
    for name in ("c.mp4", "c.webm"):
        assert copy("b.mp4", name) == ["b.mp4: its sound track 2 is left out: it is in a format that cannot be decoded"]
        assert len(tracks_of(name)) == 1


@pytest.mark.parametrize("target", ["c.mp4", "c.webm"])
def test_clocks_that_jump_go_on(here, target):
    parts = []
    for n in range(2):
        path = here / f"{n}.ts"
        write_video(path, moving_frames(25), sound=[{}], format="mpegts")
        parts.append(path.read_bytes())
    (here / "a.ts").write_bytes(parts[0] + parts[1])
    assert copy("a.ts", target) == []
    video = read_video(target)
    assert len(video.timing.times) == 50
    assert float(video.timing.end * video.timing.base) == pytest.approx(2, abs=0.1)
    seconds, loud = loudness(target)
    assert seconds == pytest.approx(2, abs=0.15)
    assert np.sort(loud[:19])[2] > 0.3  # but for the seam
    pauses = np.diff([*video.timing.times, video.timing.end]) * float(video.timing.base)
    assert pauses.max() < 0.15


def test_a_file_of_noise_is_told_in_one_line(here):
    Path("a.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    Path("b.mp4").write_text("#EXTM3U\nhttp://127.0.0.1/a.ts\n")
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(UserError, match="neither a picture nor a film"):
            read_video(name)


# --- Sound that does not fit ---


@pytest.mark.parametrize(
    "rate, layout, target, wanted",
    [
        (192000, "mono", "b.mp4", ("aac", 96000, "mono")),
        (22222, "stereo", "b.mp4", ("aac", 22050, "stereo")),
        (4000, "mono", "b.mp4", ("aac", 7350, "mono")),
        (48000, "6.1", "b.mp4", ("aac", 48000, "5.1")),
        (44100, "5.1(side)", "b.webm", ("opus", 48000, "5.1")),
    ],
)
def test_sound_is_encoded_at_the_nearest_rate_and_layout(here, rate, layout, target, wanted):
    write_video(
        here / "a.mkv",
        moving_frames(13),
        sound=[{"codec": "pcm_s16le", "rate": rate, "layout": layout, "pixels": "s16"}],
    )
    copy("a.mkv", target)
    assert tracks_of(target) == [wanted]
    seconds, loud = loudness(target)
    assert seconds == pytest.approx(0.52, abs=0.07) and loud[:4].min() > 0.1


def test_the_encoder_is_asked_before_it_is_used():
    class Context:
        sample_rate, layout = 11025, av.AudioLayout("7.1")

    assert encoder_settings("aac", Context) == (11025, "7.1")
    assert encoder_settings("libopus", Context) == (48000, "7.1")
    assert not is_unnamed(Context.layout)


def test_sound_that_a_container_refuses_is_encoded_anew(here):
    write_video(
        here / "a.mkv",
        moving_frames(13),
        sound=[{"codec": "flac", "rate": 48000, "layout": "stereo", "pixels": "s16"}],
    )
    copy("a.mkv", "b.webm")
    assert tracks_of("b.webm")[0][0] == "opus"


# --- Files are what they are ---


def test_videos_are_known_by_their_content(here):
    write_video(here / "clip.jpg", moving_frames(3), format="mp4")
    Image.fromarray(smooth_image(8, 8)).save("photo.mp4", "PNG")
    frames = [Image.fromarray(frame) for frame in moving_frames(3)]
    for name in ("anim.webp", "anim.png", "anim.gif", "anim.avif"):
        frames[0].save(name, save_all=True, append_images=frames[1:], duration=80, loop=0)
        frames[0].save(f"still{Path(name).suffix}")
        assert is_video(name) and not is_video(f"still{Path(name).suffix}")
    assert is_video("clip.jpg") and not is_video("photo.mp4")
    assert is_video("missing.mp4") and not is_video("missing.jpg")
    Path("text.mp4").write_text("I am nothing to look at\n")
    assert is_video("text.mp4")
    assert len(read_video("clip.jpg").timing.times) == 3


@pytest.mark.parametrize("suffix", ["webp", "png", "avif"])
def test_animated_images_are_videos(here, suffix):
    levels = moving_frames(4)
    frames = [Image.fromarray(frame) for frame in levels]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(f"a.{suffix}", save_all=True, append_images=frames[1:], duration=[80, 40, 0, 120], loop=0, **options)
    video = read_video(f"a.{suffix}")
    moments = [float(time * video.timing.base) for time in (*video.timing.times, video.timing.end)]
    assert moments == pytest.approx([0, 0.08, 0.12, 0.22, 0.34]) if suffix == "webp" else len(moments) == 5
    read = list(read_frames(video))
    assert len(read) == 4 and np.abs(read[2] - levels[2]).mean() < 8
    part = read_video(f"a.{suffix}", start=0.05, end=0.13)
    assert len(part.timing.times) == len(list(read_frames(part))) >= 1


def test_a_cover_is_no_film(here):
    with av.open("a.mp3", "w") as out:
        track = out.add_stream("mp3", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), "fltp", "stereo")
        frame.sample_rate = 44100
        out.mux(track.encode(frame))
        out.mux(track.encode())
    with pytest.raises(UserError, match="no pictures in it"):
        read_video("a.mp3")


def test_names_with_colons_and_other_bytes(here):
    write_video(here / "a.mp4", moving_frames(2))
    for name in ("12:30.mp4", b"caf\xe9.mp4".decode("utf-8", "surrogateescape"), "x" * 251 + ".mp4"):
        (here / "a.mp4").rename(name)
        assert len(read_video(name).timing.times) == 2
        with video_writer(f"z{name}"[:-5] + ".mp4", read_video(name).timing, (48, 64)) as write:
            write(smooth_image(48, 64))
        Path(name).rename("a.mp4")


# --- Timing ---


def test_no_frame_of_a_gif_is_shorter_than_browsers_show(here):
    write_video(here / "a.mp4", moving_frames(30), rate=60)
    copy("a.mp4", "a.gif")
    with Image.open("a.gif") as image:
        durations = []
        for n in range(image.n_frames):
            image.seek(n)
            durations.append(image.info["duration"])
    assert min(durations) >= 20 and sum(durations) == 500 and len(durations) == 25


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".webp", ".gif"])
@pytest.mark.parametrize("base, rate", [(Fraction(42949673), Fraction(1, 42949673)), (Fraction(9999), Fraction(25))])
def test_a_film_of_years_is_written(here, suffix, base, rate):
    """As damaged files may say that they are."""
    frames = moving_frames(6)
    with video_writer("film" + suffix, Timing(list(range(6)), 6, base, rate), frames[0].shape[:2]) as write:
        for frame in frames:
            write(frame)
    assert len(list(read_frames(read_video("film" + suffix)))) == 6


def test_frames_that_last_very_long():
    timing = Timing([0, 1, 10**12], 10**12 + 1, Fraction(1, 90000), Fraction(25))
    fitted = fit_ticks(timing)
    assert max(np.diff([*fitted.times, fitted.end])) < 2**31
    gif, kept = thinned(timing, Fraction(1, 100), 2, 65535)
    assert kept == {0, 2} or kept == {0, 1, 2}
    assert max(np.diff([*gif.times, gif.end])) <= 65535


def test_the_header_is_written_before_the_first_frame(here):
    with pytest.raises(UserError, match="too many"), video_writer("a.webp", Timing([0], 1, 1, 1), (8, 20000)):
        pass
    with video_writer("a.mp4", Timing([0], 1, Fraction(1, 25), Fraction(25)), (48, 64)) as write:
        assert Path("a.mp4").stat().st_size > 0
        write(flat_frame(0)[0])
