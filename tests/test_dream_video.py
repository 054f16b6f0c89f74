"""dream_video.py: zooming, resuming, films and their sound, as a user meets them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

from models.dreaming import sharing
from models.dreaming.recipes import read_recipe

import av
import numpy as np
import pytest
from conftest import run, script_command, smooth_image
from PIL import Image
from videos import moving_frames, write_video

import dataset.frames
import dataset.video_writer
import dream_video
from dataset.camera import Step, close_loop, overlap, transform_view
from dataset.cli import UserError
from dataset.drift import statistics
from dataset.images import read_image
from dataset.video import constant_rate, read_frames, read_video

TINY = ["--octaves", "1", "--steps", "1", "--layers", "conv2"]
NTSC = Fraction(30000, 1001)


def make_clip(path, frames=8, rate=NTSC, sound="aac", size=(32, 48), times=None, base=None, rotation=0):
    """A film whose picture moves 1 pixel down and 2 right a frame; its sound rises from 300 Hz. Returns its frames."""
    height, width = size
    world = smooth_image(height + frames, width + 2 * frames)
    levels = [world[i : i + height, 2 * i : 2 * i + width] for i in reversed(range(frames))]
    with av.open(str(path), "w") as out:
        video = out.add_stream("libvpx-vp9" if path.suffix == ".webm" else "libx264", rate=rate, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = base or 1 / rate
        if rotation:
            video.set_display_rotation(rotation)
        audio = out.add_stream(sound, rate=48000, layout="stereo") if sound else None
        for i, frame in enumerate(levels):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
            frame.pts, frame.time_base = times[i] if times else i, base or 1 / rate
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio:
            t = np.arange(int(frames / rate * 48000)) / 48000
            tone = np.float32(0.5 * np.sin(2 * np.pi * (300 + 900 * t) * t))
            samples = av.AudioFrame.from_ndarray(np.stack([tone, tone / 2]), "fltp", "stereo")
            samples.sample_rate, samples.pts, samples.time_base = 48000, 0, Fraction(1, 48000)
            out.mux(audio.encode(samples))
            out.mux(audio.encode())
    return levels


def heard(path):
    """(codec, the left channel of the film's first second at 48 kHz, as it is played)."""
    with av.open(str(path)) as video:
        track = video.streams.audio[0]
        resampler = av.AudioResampler("fltp", "stereo", 48000)
        wave = np.zeros(48000)
        for frame in video.decode(track):
            at = round(frame.pts * frame.time_base * 48000)
            for part in resampler.resample(frame):
                samples = part.to_ndarray()[0]
                inside = samples[max(-at, 0) : max(48000 - at, 0)]
                wave[max(at, 0) : max(at, 0) + len(inside)] = inside
                at += len(samples)
        return track.codec_context.codec.canonical_name, wave


def delay(a, b):
    """By how many samples b comes after a, and how alike they are then: 1 if the same but for loudness."""
    spectrum = np.fft.irfft(np.conj(np.fft.rfft(a)) * np.fft.rfft(b))
    lag = int(np.argmax(spectrum))
    return lag if lag < len(a) / 2 else lag - len(a), spectrum.max() / np.linalg.norm(a) / np.linalg.norm(b)


def dream(*arguments):
    """The script's main() in this process."""
    dream_video.main([*map(str, arguments), *TINY, "--quiet"])


def start(*arguments, cwd):
    words = script_command("dream_video.py", *arguments, *TINY)
    return subprocess.Popen(words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def frames_in(folder):
    return [np.asarray(Image.open(path)) for path in sorted(Path(folder).glob("[0-9]*.png"))]


# --- Options ---


def test_a_class_has_defaults_of_its_own():
    plain = dream_video.parse_arguments(["photo.png"])[0]
    of_class = dream_video.parse_arguments(["photo.png", "--class", "0", "--smooth", "1"])[0]
    assert (plain.lapnorm, plain.step_size) == (0, 1.5) and (of_class.lapnorm, of_class.step_size) == (4, 1.5)
    assert of_class.smooth == 1 and of_class.steps == plain.steps


def test_a_schedule_of_layers_with_a_class(photo, here):
    Path("plan.json").write_text('[{"frame": 2, "layers": ["conv3"]}]')
    options = ["--class", "0", "--frames", "3", "--octaves", "1", "--steps", "1", "--quiet"]
    dream_video.main(["photo.png", "-o", "a", *options, "--schedule", "plan.json"])
    dream_video.main(["photo.png", "-o", "b", *options])
    a, b = frames_in("a"), frames_in("b")
    assert np.array_equal(a[0], b[0]) and not np.array_equal(a[2], b[2])


def test_a_loop_has_no_jump():
    """Frames that grow brighter by a level each: the loop's only large steps are spread over its dissolve."""
    frames = 60
    shown = [close_loop(n, frames, lambda i: np.full((2, 2, 3), i, np.uint8)) for n in range(frames + overlap(frames))]
    shown = [int(levels[0, 0, 0]) for levels in shown if levels is not None]
    assert len(shown) == frames
    assert max(abs(np.diff([*shown, shown[0]]))) < 8


# --- The endless zoom ---


def test_a_zoom(photo, here, monkeypatch):
    shown = []
    monkeypatch.setattr(dream_video, "show", lambda paths, quiet: shown.extend(map(str, paths)))
    options = ["--frames", 5, "--fps", "30000/1001", "--rotate", 3, "--preview", "now.png", "--show"]
    dream(photo, "-o", "zoom.mp4", *options)
    assert shown == ["zoom.mp4"]
    video = read_video("zoom.mp4")
    assert video.timing == constant_rate(5, NTSC)
    assert video.size == (34, 48)  # 33 x 47, padded
    assert read_image("now.png").shape == (33, 47, 3)
    assert not Path("zoom.mp4.frames").exists()
    with av.open("zoom.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        recipe = json.loads(container.metadata["comment"])
    assert (recipe["picture"], recipe["model"]) == ("photo.png", "googlenet")
    assert (recipe["options"]["zoom"], recipe["options"]["fps"]) == (1.05, "30000/1001")


def test_a_frame_is_the_last_one_moved_and_dreamed(net, photo, here):
    dream(photo, "-o", "frames", "--frames", 3, "--zoom", 1.3, "--drift", "free", "--seed", 5)
    first, _, last = frames_in("frames")
    options = {"layers": ["conv2"], "octaves": 1, "steps": 1, "seed": 5}
    image = read_image(photo)
    for n in range(3):
        image = dream_video.dream_frame(net, image if n == 0 else transform_view(image, Step([], zoom=1.3)), options, n)
        assert np.abs(image - [first, _, last][n]).max() <= 0.51  # fed back unrounded
    assert np.abs(np.float32(first) - read_image(photo)).mean() > 0.5


def test_colour_and_contrast_are_held_over_a_long_loop(net):
    image = np.float32(smooth_image(24, 32))
    plan = [Step(["conv2"], zoom=1.05)] * 40
    options = {"octaves": 1, "steps": 1, "step_size": 8, "seed": 0}

    def drift(hold):
        frames = [state["frame"] for state in dream_video.zoom_frames(net, image, plan, options, hold)]
        return max(np.abs(np.subtract(statistics(frames[0]), statistics(frame))).max() for frame in frames)

    assert drift(hold=True) < 3 < 15 < drift(hold=False)


# --- Never lose a frame ---


def wait_for(path, process):
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_resumed_is_the_same_as_undisturbed(photo, tmp_path, blow):
    arguments = [photo, "--frames", 24, "--rotate", 2, "--loop"]
    process = start(*arguments, "-o", "killed", cwd=tmp_path)
    wait_for(tmp_path / "killed.frames" / "000004.png", process)
    process.send_signal(blow)
    _, err = process.communicate()
    assert process.returncode in (-signal.SIGKILL, 130) and "Traceback" not in err
    assert not (tmp_path / "killed").exists()
    if blow == signal.SIGINT:
        assert "same command continues" in err and err.endswith("dream_video.py: interrupted\n")
    kept = tmp_path / "killed.frames" / "000002.png"
    before = kept.stat().st_mtime_ns
    process = start(*arguments, "-o", "killed", cwd=tmp_path)  # again, and killed again, to be quite sure
    wait_for(tmp_path / "killed.frames" / "000010.png", process)
    assert kept.stat().st_mtime_ns == before
    process.kill()
    process.communicate()
    assert run("dream_video.py", *arguments, "-o", "killed", *TINY, cwd=tmp_path)[0] == 0
    assert run("dream_video.py", *arguments, "-o", "undisturbed", *TINY, cwd=tmp_path)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "photo.png", "undisturbed"]
    killed, undisturbed = frames_in(tmp_path / "killed"), frames_in(tmp_path / "undisturbed")
    assert len(killed) == 24
    assert all(np.array_equal(a, b) for a, b in zip(killed, undisturbed, strict=True))


def half_done(photo, monkeypatch, error=KeyboardInterrupt, told=KeyboardInterrupt):
    """A zoom of 6 frames that stops after 3 of them."""
    keep = dream_video.keep_frame

    def stopped(folder, n, *rest):
        if n == 3:
            raise error
        keep(folder, n, *rest)

    with monkeypatch.context() as context:
        context.setattr(dream_video, "keep_frame", stopped)
        with pytest.raises(told):
            dream(photo, "-o", "zoom.gif", "--frames", 6)
    assert len(frames_in("zoom.gif.frames")) == 3 and not Path("zoom.gif").exists()


def test_changed_options_are_refused(photo, here, monkeypatch):
    half_done(photo, monkeypatch)
    with pytest.raises(UserError, match=r"zoom: 1.05, now 1.1.*--restart"):
        dream(photo, "-o", "zoom.gif", "--frames", 6, "--zoom", 1.1)
    Image.fromarray(smooth_image(33, 47, seed=9)).save(photo)
    with pytest.raises(UserError, match="source"):
        dream(photo, "-o", "zoom.gif", "--frames", 6)
    dream(photo, "-o", "zoom.gif", "--frames", 6, "--zoom", 1.1, "--restart")
    assert Path("zoom.gif").exists() and not Path("zoom.gif.frames").exists()


def test_an_option_that_an_old_run_does_not_name_counts_as_its_default(photo, here, monkeypatch):
    half_done(photo, monkeypatch)
    record = Path("zoom.gif.frames/options.json")
    options = json.loads(record.read_text())
    assert (options.pop("lapnorm"), options["film"]) == (0, False)
    record.write_text(json.dumps(options))
    with pytest.raises(UserError, match="lapnorm: 0, now 2"):
        dream(photo, "-o", "zoom.gif", "--frames", 6, "--lapnorm", 2)
    dream(photo, "-o", "zoom.gif", "--frames", 6)
    assert Path("zoom.gif").exists()


def test_a_full_disk_keeps_what_there_is(photo, here, monkeypatch):
    half_done(photo, monkeypatch, OSError(28, "No space left on device"), UserError)
    dream(photo, "-o", "zoom.gif", "--frames", 6)
    assert Image.open("zoom.gif").n_frames == 6


def test_two_at_a_time_are_refused(photo, here):
    with dream_video.resume_frames(Path("zoom.mp4.frames"), {}), pytest.raises(UserError, match="another"):
        dream(photo, "-o", "zoom.mp4")


def test_a_folder_of_frames_is_replaced_but_no_other(photo, here):
    for frames in (4, 2):
        dream(photo, "-o", "out", "--frames", frames)
        assert len(frames_in("out")) == frames
    assert read_recipe("out/000001.png")["options"]["frames"] == 2
    Path("out/diary.txt").write_text("dear me")
    with pytest.raises(UserError, match="more than frames"):
        dream(photo, "-o", "out", "--frames", 2)
    assert Path("out/diary.txt").exists()


# --- Films ---


def test_a_film_keeps_its_rate_size_and_sound(here):
    make_clip(Path("clip.mp4"))
    dream("clip.mp4", "-o", "dream.mp4")
    video = read_video("dream.mp4")
    assert video.timing == constant_rate(8, NTSC) and video.size == (32, 48)
    codec, wave = heard("dream.mp4")
    assert codec == "aac" and np.array_equal(wave, heard("clip.mp4")[1])  # the same packets


@pytest.mark.parametrize(
    "source, sound, output, codec",
    [("clip.mp4", "aac", "dream.webm", "opus"), ("clip.mkv", "pcm_s16le", "a.mp4", "aac")],
)
def test_sound_that_the_container_cannot_hold_is_encoded_anew(here, source, sound, output, codec):
    make_clip(Path(source), sound=sound)
    dream(source, "-o", output)
    now, wave = heard(output)
    lag, likeness = delay(heard(source)[1], wave)
    assert now == codec and abs(lag) <= 48 and likeness > 0.95


def test_a_part_of_a_film_stays_in_step_with_its_sound(here):
    make_clip(Path("clip.mp4"), frames=40)
    dream("clip.mp4", "-o", "dream.mp4", "--start", "0.5", "--end", "0:00:01", "--width", 24)
    video = read_video("dream.mp4")
    assert len(video.timing.times) == 15 and video.size == (16, 24)
    whole, part = heard("clip.mp4")[1], heard("dream.mp4")[1]
    begin = round(15 / NTSC * 48000)  # the first frame at or after 0.5 s
    lag, likeness = delay(whole[begin : begin + 23000], part[:23000])
    assert abs(lag) <= 48 and likeness > 0.9


def test_a_variable_frame_rate_is_kept(here):
    times = [0, 10, 40, 45, 90, 100, 101, 160]
    make_clip(Path("clip.mp4"), times=times, base=Fraction(1, 300), sound=None)
    for output in ("dream.mp4", "dream.webm"):
        dream("clip.mp4", "-o", output)
        timing = read_video(output).timing
        assert [float(t * timing.base) for t in timing.times] == pytest.approx([t / 300 for t in times], abs=0.001)


@pytest.mark.parametrize("output, rotation", [("dream.mp4", -90), ("dream.webm", 0)])
def test_a_turned_film_is_shown_as_it_was(here, output, rotation):
    make_clip(Path("clip.mp4"), rotation=-90, sound=None, frames=2)
    dream("clip.mp4", "-o", output, "--step-size", 0.1)
    clip, video = read_video("clip.mp4"), read_video(output)
    assert (clip.size, video.size, video.rotation) == ((48, 32), (48, 32), rotation)
    assert np.abs(next(read_frames(clip)) - next(read_frames(video))).mean() < 6


def test_a_silent_film_of_one_frame(here):
    make_clip(Path("one.mp4"), frames=1, sound=None)
    dream("one.mp4", "-o", "dream.mp4")
    video = read_video("dream.mp4")
    assert len(video.timing.times) == 1 and not video.sound


def test_a_film_cut_off_is_told(here, capsys):
    make_clip(Path("clip.mp4"), frames=20, sound=None)
    with av.open("clip.mp4") as clip, av.open("fast.mp4", "w", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux():
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    data = Path("fast.mp4").read_bytes()
    Path("cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    dream_video.main(["cut.mp4", *TINY])
    assert "cut.mp4 is cut off: " in capsys.readouterr().err
    assert 0 < len(read_video("cut_dream.mp4").timing.times) < 20


def test_a_film_resumes_too(here, monkeypatch):
    make_clip(Path("clip.mp4"))
    dream("clip.mp4", "-o", "undisturbed", "--blend", 0.5)
    keep = dream_video.keep_frame

    def stopped(folder, n, *rest):
        if n == 3:
            raise KeyboardInterrupt
        keep(folder, n, *rest)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(dream_video, "keep_frame", stopped)
        dream("clip.mp4", "-o", "killed", "--blend", 0.5)
    dream("clip.mp4", "-o", "killed", "--blend", 0.5)
    pairs = zip(frames_in("killed"), frames_in("undisturbed"), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def broken_recording(path):
    """A recording put together of two, whose clock starts anew, with damaged packets of pictures and of sound.

    Of much smaller frames x264 does not always make the same bytes (its mbtree, in assembler).
    """
    parts = []
    for n in range(2):
        part = write_video(path.parent / f"{n}.ts", moving_frames(10, 96, 160), sound=[{}], format="mpegts")
        parts.append(bytearray(part.read_bytes()))
        part.unlink()
    for kind, number in (("audio", 1), ("video", 4)):
        path.write_bytes(parts[0])
        with av.open(str(path)) as container:
            at = [p.pos for p in container.demux(getattr(container.streams, kind)[0]) if p.size][number]
        parts[0][at + 30 : at + 150] = b"\xff" * 120
    path.write_bytes(parts[0] + parts[1])


@pytest.mark.parametrize("output", ["dream.mp4", "dream.webm"])
def test_a_broken_recording_is_dreamed_to_the_end_and_resumes_to_the_same_bytes(here, monkeypatch, capsys, output):
    broken_recording(here / "clip.ts")
    dream_video.main(["clip.ts", "-o", output, *TINY, "--blend", "0.5"])
    told = capsys.readouterr().err
    assert "its sound: 1 damaged packet is left out" in told
    whole = Path(output).read_bytes()
    video = read_video(output)
    assert len(video.timing.times) >= 15 and video.sound
    assert 0.7 < float(video.timing.end * video.timing.base) < 0.9
    Path(output).unlink()
    keep = dream_video.keep_frame

    def stopped(folder, n, *rest):
        if n == 12:
            raise KeyboardInterrupt
        keep(folder, n, *rest)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(dream_video, "keep_frame", stopped)
        dream("clip.ts", "-o", output, "--blend", 0.5)
    dream("clip.ts", "-o", output, "--blend", 0.5)
    assert Path(output).read_bytes() == whole


def test_sound_that_fails_in_the_middle_leaves_the_pictures(here, monkeypatch, capsys):
    make_clip(Path("clip.mp4"))

    def failing(video, tracks, out):
        yield 0
        raise av.error.InvalidDataError(1, "of no use")

    monkeypatch.setattr("dataset.video_writer.copy_sound", failing)
    dream_video.main(["clip.mp4", *TINY])
    assert "the rest of the sound is left out: of no use" in capsys.readouterr().err
    assert len(read_video("clip_dream.mp4").timing.times) == 8


def test_nothing_dreamed_is_lost_to_a_file_that_fails_at_its_end(here, monkeypatch, capsys):
    """It is written again, without the sound."""
    make_clip(Path("clip.mp4"))
    closing, failures = dataset.video_writer.closing, [av.error.InvalidDataError(1, "of no use")]

    @contextlib.contextmanager
    def failing(container):
        with closing(container):
            yield container
        if failures:
            raise failures.pop()

    monkeypatch.setattr("dataset.video_writer.closing", failing)
    dream_video.main(["clip.mp4", *TINY])
    assert "written without sound, which failed: of no use" in capsys.readouterr().err
    video = read_video("clip_dream.mp4")
    assert len(video.timing.times) == 8 and not video.sound


def test_names_that_file_systems_take_and_ffmpeg_does_not(here, net):
    make_clip(Path("clip.mp4"), frames=2, sound=None)
    for name in ("12:30.mp4", b"caf\xe9.mp4".decode("utf-8", "surrogateescape"), "x" * 251 + ".mp4"):
        Path("clip.mp4").rename(name)
        dream(name)
        Path(name).rename("clip.mp4")
        made = [path for path in here.iterdir() if path.name != "clip.mp4"]
        assert len(made) == 1 and len(read_video(made[0]).timing.times) == 2
        assert made[0].name.endswith("_dream.mp4")
        made[0].unlink()
    dream("clip.mp4", "-o", "y" * 251 + ".mp4")
    assert Path("y" * 251 + ".mp4").exists() and len(list(here.iterdir())) == 2


def test_files_are_what_they_are_not_what_they_are_called(photo, here):
    photo.rename("photo.mp4")
    dream("photo.mp4", "-o", "zoom", "--frames", 2)
    make_clip(Path("clip.mp4"), frames=2, sound=None)
    Path("clip.mp4").rename("clip.jpg")
    dream("clip.jpg", "-o", "film", "--start", 0.01)
    assert len(frames_in("zoom")) == 2 and len(frames_in("film")) == 1


def test_an_animation_is_a_film(here):
    frames = [Image.fromarray(smooth_image(32, 48, seed)) for seed in range(3)]
    frames[0].save("a.webp", save_all=True, append_images=frames[1:], duration=80)
    for output in ("b.webp", "c.webp"):
        dream("a.webp" if output == "b.webp" else "b.webp", "-o", output)  # the second is one of our own
        video = read_video(output)
        assert len(video.timing.times) == 3 and float(video.timing.end * video.timing.base) == 0.24


def test_what_changed_is_told_in_words(photo, here, monkeypatch):
    half_done(photo, monkeypatch)
    Image.fromarray(smooth_image(33, 47, seed=9)).save(photo)
    with pytest.raises(UserError) as told:
        dream(photo, "-o", "zoom.gif", "--frames", 6, "--guide", photo)
    assert "the file that is dreamed on, has changed" in str(told.value)
    assert not re.search("[0-9a-f]{32}", str(told.value))


# --- Dreams that stick ---


def test_blending_carries_the_dream_but_not_over_a_cut(net):
    still, cut = np.float32(smooth_image(32, 48)), np.float32(255 - smooth_image(32, 48))
    options = {"layers": ["conv2"], "octaves": 1, "steps": 1, "seed": 0}

    def video(blend):
        return [s["frame"] for s in dream_video.video_frames(net, [still, still, cut], options, blend, False, True)]

    (_, plain, plain_cut), (_, blended, blended_cut) = video(0), video(0.9)
    assert np.abs(plain - blended).mean() > 0.1
    assert np.array_equal(plain_cut, blended_cut)


def test_flow_flickers_less(net):
    """What the dream changes from frame to frame, seen along the motion, which is known: 1 down and 2 right a frame."""
    pytest.importorskip("cv2", reason="OpenCV is an optional dependency")
    world = np.float32(smooth_image(64, 96))
    images = [world[8 - i : 56 - i, 16 - 2 * i : 80 - 2 * i] for i in range(6)]
    options = {"layers": ["inception3a"], "octaves": 1, "steps": 3, "jitter": 8, "seed": 0}

    def flicker(blend, along):
        frames = [s["frame"] for s in dream_video.video_frames(net, images, options, blend, along, True)]
        pairs = zip(frames, frames[1:], strict=False)
        return np.mean([np.abs(new[1:, 2:] - old[:-1, :-2]).mean() for old, new in pairs])

    assert flicker(0.8, True) < 0.75 * flicker(0, False)


def test_without_opencv_one_line_says_what_to_do(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    make_clip(Path("clip.mp4"), frames=2)
    with pytest.raises(UserError, match="pip install opencv-python-headless"):
        dream("clip.mp4", "--flow")


# --- Wrong input ---


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "SOURCE"),
        (["missing.jpg"], "no such file"),
        (["missing.mp4"], "no such file"),
        (["folder"], "is a folder"),
        (["text.jpg"], "not a picture"),
        (["text.mp4"], "neither a picture nor a film"),
        (["text.gif"], "not a picture"),
        (["cut.mp4"], "cut.mp4"),
        (["sound.mp4"], "no pictures in it"),
        (["clip.mp4", "--zoom", "1.1"], "--zoom is not for a film"),
        (["clip.mp4", "--start", "1:2:3:4"], "--start"),
        (["clip.mp4", "--start", "9"], "no frames between"),
        (["clip.mp4", "-o", "clip.mp4"], "is the input"),
        (["photo.png", "--blend", "0.5"], "--blend is not for a picture"),
        (["photo.png", "--zoom", "0"], "--zoom"),
        (["photo.png", "--fps", "1/0"], "--fps"),
        (["photo.png", "--rotate", "nan"], "--rotate"),
        (["photo.png", "-o", "zoom.avi"], "cannot write .avi"),
        (["photo.png", "-o", "zoom.gif", "--quality", "5"], "--quality"),
        (["photo.png", "--quality", "101"], "--quality"),
        (["photo.png", "--preview", "now.txt"], "cannot write .txt"),
        (["photo.png", "--preview", "photo.png"], "is the input"),
        (["photo.png", "--schedule", "text.jpg"], "no JSON"),
        (["photo.png", "--schedule", "wrong.json"], "did you mean zoom"),
        (["photo.png", "--layers", "inception9z"], "did you mean"),
        (["photo.png", "--seed", "x"], "--seed"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(photo, here, capsys, monkeypatch, arguments, words):
    for name in ("text.jpg", "text.mp4", "text.gif"):
        Path(name).write_text("I am nothing to look at\n")
    Path("wrong.json").write_text('[{"frame": 3, "zom": 2}]')
    Path("folder").mkdir()
    if any("mp4" in str(word) for word in arguments):
        make_clip(Path("clip.mp4"))
        Path("cut.mp4").write_bytes(Path("clip.mp4").read_bytes()[:2000])
        with av.open("sound.mp4", "w") as out, av.open("clip.mp4") as clip:
            track = out.add_stream_from_template(clip.streams.audio[0])
            for packet in clip.demux(audio=0):
                if packet.dts is not None:
                    packet.stream = track
                    out.mux(packet)
    before = sorted(here.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["dream_video.py", *map(str, arguments), "--quiet"])
    with pytest.raises(SystemExit) as ended:
        dream_video.run(dream_video.main)
    out, err = capsys.readouterr()
    assert ended.value.code in (1, 2) and out == ""
    assert err.startswith("dream_video.py: error: ") and err.count("\n") == 1
    assert words in err
    assert sorted(here.rglob("*")) == before


def test_what_is_kept_and_damaged_is_told_in_one_line(photo, here, monkeypatch):
    half_done(photo, monkeypatch)
    folder = Path("zoom.gif.frames")
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    state = dict(np.load(folder / "state.npz"))

    def change(**values):
        np.savez(folder / "state.npz", **{k: v for k, v in {**state, **values}.items() if v is not None})

    damages = [
        lambda: (folder / "state.npz").write_bytes(kept["state.npz"][:900]),
        lambda: (folder / "options.json").write_text("[" * 100_000),
        lambda: (folder / "options.json").write_text("[]"),
        lambda: (folder / "000001.png").unlink(),
        lambda: change(finished=np.array("three")),
        lambda: change(finished=-1),
        lambda: change(finished=2**40),
        lambda: change(frame=state["frame"][1:]),
        lambda: change(frame=state["frame"] * np.nan),
        lambda: change(mean=None),
        lambda: change(detail=None),
        lambda: change(tile=0),
        lambda: change(other=1),
    ]
    for damage in damages:
        damage()
        with pytest.raises(UserError, match="--restart"):
            dream(photo, "-o", "zoom.gif", "--frames", 6)
        for name, data in kept.items():
            (folder / name).write_bytes(data)
    dream(photo, "-o", "zoom.gif", "--frames", 6)
    assert not folder.exists()


def test_a_kill_while_frames_are_deleted_leaves_nothing_to_trip_over(photo, here, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(dataset.frames.shutil, "rmtree", lambda folder, **_: None)
        dream(photo, "-o", "zoom.gif", "--frames", 3)
    assert len(list(here.iterdir())) == 3
    dream(photo, "-o", "zoom.gif", "--frames", 3)
    assert sorted(path.name for path in here.iterdir()) == ["photo.png", "zoom.gif"]


# --- Several processes ---


def launch(*arguments, cwd):
    """Start the script in two processes; a signal to their group reaches both."""
    words = [Path(sys.executable).parent / "mlx.launch", "-n", "2", "--backend", "ring"]
    words += script_command("dream_video.py", *arguments, *TINY)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, words)), cwd=cwd, start_new_session=True, **pipes)


@pytest.mark.parametrize("options", [[], ["--flow"]])
def test_ranks_share_a_film(tmp_path, options, monkeypatch):
    """Three scenes, of which two are dreamed at a time; killed and resumed as well: the same bytes as one process."""
    if options:
        pytest.importorskip("cv2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    frames = moving_frames(12, 80, 100)  # tall enough for two bands
    write_video(tmp_path / "clip.mp4", [255 - frame if 3 <= i < 8 else frame for i, frame in enumerate(frames)])
    assert run("dream_video.py", "clip.mp4", "-o", "one.mp4", *options, *TINY, cwd=tmp_path)[0] == 0

    killed = launch("clip.mp4", "-o", "two.mp4", *options, cwd=tmp_path)
    wait_for(tmp_path / "two.mp4.frames" / "000001.png", killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "two.mp4").exists() and (tmp_path / "two.mp4.frames" / "state.npz").exists()
    resumed = launch("clip.mp4", "-o", "two.mp4", *options, cwd=tmp_path)
    out, err = resumed.communicate(timeout=100)
    assert (resumed.returncode, out.split()) == (0, ["two.mp4"]), err
    assert (tmp_path / "two.mp4").read_bytes() == (tmp_path / "one.mp4").read_bytes()
    assert not (tmp_path / "two.mp4.frames").exists()


def test_who_dreams_which_frame():
    """A run is one rank's; the next run goes to whoever is done; what is finished already is left out."""
    assert list(sharing.rounds([0, 3, 4], 6, 0, 2)) == [[0, 3], [1, 4], [2, 5]]
    assert list(sharing.rounds([0, 3, 4], 6, 2, 2)) == [[2, 3], [4, None], [5, None]]
    assert list(sharing.rounds(range(3), 3, 1, 4)) == [[1, 2, None, None]]
