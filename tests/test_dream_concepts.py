"""dream.py --concept and dream_video.py --concept: from a folder to a picture, and again from the picture."""

import json
from dataclasses import replace

import models
from models.dreaming import concepts
from models.dreaming.background import find_backgrounds
from models.dreaming.options import CONCEPT_DEFAULTS
from models.dreaming.recipes import make_recipe, read_recipe, recipe_arguments, save_options
from models.dreaming.targets import Target

import mlx.core as mx
import numpy as np
import pytest
from conftest import sky_image
from tools.judge_concepts import crops, probabilities

import convert
import dream
import dream_video
from dataset.camera import Step, plan_zoom
from dataset.cli import UsageError, UserError
from dataset.images import read_image, write_image

LAYER = "inception3a"


@pytest.fixture(autouse=True)
def elsewhere(here, few_backgrounds):
    """Features are kept in the current folder."""


@pytest.fixture
def quick(own, photo):
    """What dream.py needs to know for a quick dream."""
    return [photo, "--weights", own.path, "--steps", 2, "--octaves", 2, "--quiet"]


def dreamed(*words, output="out.png"):
    dream.main([str(word) for word in (*words, "-o", output)])
    return read_image(output)


def test_a_dream_of_a_folder_is_repeated_without_it(quick, own, slugs, photographs, tmp_path, capsys):
    words = ["--concept", slugs, f"{slugs / '00.png'}=-0.5", "--background", photographs, "--layers", LAYER]
    first = dreamed(*quick, *words)
    recipe = read_recipe("out.png")
    options = recipe["options"]
    assert {name: options[name] for name in CONCEPT_DEFAULTS} == CONCEPT_DEFAULTS | {"steps": 2}
    assert options["concepts"] == [str(slugs), f"{slugs / '00.png'}=-0.5"] and options["layers"] == [LAYER]
    assert [told["path"] for told in recipe["concepts"]] == [str(slugs), str(slugs / "00.png")]
    photographs.rename(tmp_path / "elsewhere")
    slugs.rename(tmp_path / "gone")
    own.path.with_name("own_mlx.background.npz").unlink()
    again = dreamed(quick[0], "--weights", own.path, "--like", "out.png", "--quiet", output="again.png")
    np.testing.assert_array_equal(again, first)
    assert read_recipe("again.png") == recipe
    with pytest.raises(UserError, match="slugs: no such file or folder"):  # a folder that is named is looked at
        dreamed(quick[0], "--weights", own.path, "--like", "out.png", "--concept", slugs)
    capsys.readouterr()
    dream.main(["--recipe", "out.png"])
    assert f"--concept {slugs} " in capsys.readouterr().out


def test_a_dream_sees_more_of_the_concept(own, slugs, photographs):
    (concept,) = concepts.make_concepts(own, slugs, [LAYER], photographs, quiet=True)

    def z(image):
        a = own.activations(image[None], [LAYER])[LAYER]
        return (a @ mx.array(concept.direction.astype(np.float32))).mean().item()

    image = sky_image(64, 80)
    settings = {"octaves": 1, "steps": 4, "jitter": 4}
    of_text = dream.deepdream(own, image, layers=[LAYER], concepts=[str(slugs)], **settings)
    np.testing.assert_array_equal(of_text, dream.deepdream(own, image, concepts=concept, **settings))
    away = dream.deepdream(own, of_text, concepts=[replace(concept, weight=-1)], **settings)
    assert z(of_text) > z(image) + 1 and z(away) < z(of_text) - 1
    mask = np.zeros((64, 80), np.float32)
    mask[:, 40:] = 255
    masked = dream.deepdream(own, image, concepts=concept, mask=mask, tile=64, **settings)
    np.testing.assert_array_equal(masked[:, :36], image[:, :36])
    assert np.abs(masked[:, 44:] - image[:, 44:]).mean() > 1


def test_a_saved_concept_dreams_the_same(quick, own, slugs, photographs, capsys):
    words = ["--background", photographs, "--layers", LAYER]
    dream.main([*map(str, [*quick[1:], "--concept", slugs, *words]), "--save-concept", "slugs.npz"])  # no picture
    assert capsys.readouterr().out == "slugs.npz\n"
    first, second = dreamed(*quick, "--concept", slugs, *words), dreamed(*quick, "--concept", "slugs.npz")
    np.testing.assert_array_equal(first, second)
    capsys.readouterr()
    convert.print_info("slugs.npz")
    told = capsys.readouterr().out
    assert f"3 images of {slugs}" in told and f"{LAYER}, 256 channels" in told
    for words, reason in (
        (["--concept", slugs, "slugs.npz", "--layers", LAYER, "--save-concept", "two.npz"], "these are 2"),
        (["--concept", slugs, "--save-concept", "slugs.txt"], "a name in .npz"),
        (["--save-concept", "slugs.npz"], "it needs that"),
    ):
        with pytest.raises(UsageError, match=reason):
            dreamed(*quick, *words)


def test_a_concept_of_any_name_is_saved(own, slugs, photographs):
    """Bytes that are no UTF-8, or letters that the locale does not know, in its folder's name."""
    folder = slugs.rename(slugs.with_name("\udcff\udc80 slugs"))
    concept = concepts.make_concepts(own, folder, [LAYER], photographs)[0]
    concepts.write_concept(folder / "c.npz", concept)
    assert concepts.read_concept(folder / "c.npz").name == concept.name


def test_a_concept_takes_the_place_of_other_targets(quick, own, slugs, photographs):
    words = ["--concept", slugs, "--background", photographs]
    dreamed(*quick, "--preset", "painterly", output="look.png")
    dreamed(*quick, "--preset", "painterly", *words, "--layers", LAYER)
    look, options = (read_recipe(path)["options"] for path in ("look.png", "out.png"))
    assert options["concepts"] and options["layers"] == [LAYER] and not options["classes"]
    target = ("concepts", "background", "layers", "classes")  # a preset is a whole look, all the rest of which stays
    assert {n: v for n, v in options.items() if n not in target} == {n: v for n, v in look.items() if n not in target}

    dreamed(*quick, "--layers", "conv3", "--smooth", "0.3", output="other.png")
    dreamed(*quick[:3], "--like", "other.png", *words, "--layers", LAYER, "--quiet")
    options = read_recipe("out.png")["options"]
    assert options["layers"] == [LAYER] and options["smooth"] == 0.3 and options["lapnorm"] == 0
    assert options["steps"] == 2 and options["decorrelate"] is None
    dreamed(*quick[:3], "--like", "out.png", "--class", "0", "--quiet", output="class.png")
    assert read_recipe("class.png")["options"]["concepts"] is None

    dreamed(*quick, *words, "--layers", LAYER, "--no-decorrelate")
    assert read_recipe("out.png")["options"]["decorrelate"] is False
    assert "--no-decorrelate" in recipe_arguments(read_recipe("out.png")["options"])


def test_what_does_not_go_with_concepts(quick, slugs, photo):
    for words, reason in (
        (["--concept", slugs, "--guide", photo], "--concept has no use for --guide"),
        (["--background", slugs], "it needs --concept"),
        (["--concept", slugs, "--layers", "inception3a:4"], "without channels and weights"),
        (["--concept", slugs, "--survey", LAYER], f"--survey {LAYER} has no use for --concept"),
        (["--concept", slugs, "--survey", "--save-concept", "s.npz"], "--survey has no use for --save-concept"),
    ):
        with pytest.raises(UsageError, match=reason):
            dreamed(*quick, *words)
    with pytest.raises(UsageError, match="put .*photo.png before --concept"):
        dream.main(["--concept", str(slugs), str(photo)])


def test_a_survey_shows_a_concept_at_every_layer_with_a_background(quick, slugs, photographs, capsys):
    dreamed(*quick, "--survey", "--concept", slugs, "--background", photographs)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[-1] == "out.png"  # the layer of a background that is made here
    assert f"--layers inception3b --concept {slugs}" in lines[0]


def test_visualizing_a_concept(own, slugs, photographs):
    words = ["--weights", own.path, "--visualize", "--noise", "48x48", "--steps", 2, "--layers", LAYER, "--quiet"]
    shown = dreamed(*words, "--concept", slugs, "--background", photographs)
    assert shown.shape == (48, 48, 3) and shown.std() > 1


def test_a_recipe_has_no_room_for_many_concepts(own):
    concept = concepts.new_concept(own, "slugs", "inception5b", np.ones(1024), np.ones(1024), 1)
    for count, told in ((10, 10), (20, 0)):
        recipe = make_recipe(own, "photo.png", {}, [Target("inception5b", concept=concept)] * count)
        assert len(recipe.get("concepts", [])) == told
        write_image("room.jpg", np.zeros((9, 9, 3)), **save_options("room.jpg", recipe))
        assert len(read_recipe("room.jpg").get("concepts", [])) == told


def test_a_schedule_passes_from_one_concept_to_another(own):
    a, b = (
        replace(concepts.new_concept(own, name, LAYER, np.ones(256), np.ones(256), 1), path=name)
        for name in ("cat", "garden")
    )
    schedule = [{"frame": 0, "concepts": [a]}, {"frame": 2, "concepts": [b]}]
    plan = plan_zoom(Step([], [a]), 3, schedule)
    assert [[(concept.path, concept.weight) for concept in step.concepts] for step in plan] == [
        [("cat", 1)],
        [("cat", 0.5), ("garden", 0.5)],
        [("garden", 1)],
    ]


def test_a_zoom_over_scheduled_concepts(own, photo, slugs, photographs, tmp_path):
    schedule = tmp_path / "schedule.json"
    leaf = slugs / "02.png"
    words = [
        photo,
        "--weights",
        own.path,
        "--frames",
        2,
        "--steps",
        1,
        "--octaves",
        1,
        "--quiet",
        "--schedule",
        schedule,
    ]
    words += ["--layers", LAYER, "--background", photographs, "-o", "frames"]
    words = [str(word) for word in words]
    schedule.write_text(json.dumps([{"frame": 1, "concepts": [f"{slugs}=0.5"]}, {"frame": 2, "concepts": [str(leaf)]}]))
    dream_video.main(words)
    frames = [read_image(tmp_path / "frames" / name) for name in ("000000.png", "000001.png")]
    assert frames[0].shape == (33, 47, 3) and np.abs(frames[0] - read_image(photo)).mean() > 0.5
    assert not (tmp_path / "frames.frames").exists()

    for wrong, reason in (
        ([{"frame": 0, "concepts": "slugs"}], "a list of folders"),
        ([{"frame": 0, "concepts": [str(slugs)], "layers": ["conv3"]}], "layers do not go with concepts"),
    ):
        schedule.write_text(json.dumps(wrong))
        with pytest.raises(UsageError, match=reason):
            dream_video.main(words)


def test_a_half_finished_video_goes_on_with_the_same_directions_only(own, photo, slugs, photographs):
    words = [str(w) for w in (photo, "--weights", own.path, "--concept", slugs, "--background", photographs)]
    args, _ = dream_video.parse_arguments([*words, "--layers", LAYER])
    assert (args.lapnorm, args.decorrelate, args.steps) == (4, True, 4)
    keys = []
    for _ in range(2):
        targets = dream_video.schedule_targets(own, args, {}, [])[0]
        keys.append(dream_video.resume_key(args, own, targets))
        write_image(slugs / "03.png", np.zeros((40, 40, 3)))
    assert keys[0]["concepts"] == keys[1]["concepts"] and keys[0]["directions"] != keys[1]["directions"]
    recipe = dream_video.recipe_of(args, own, targets)
    assert recipe["concepts"][0]["path"] == str(slugs)


def test_a_coarse_conversion_keeps_its_background(own, photographs, tmp_path):
    find_backgrounds(own, [LAYER], photographs, quiet=True)
    background = own.path.with_name("own_mlx.background.npz").read_bytes()
    for dtype in ("int8", "bfloat16"):
        path, _, _ = convert.convert(own.path, tmp_path / f"{dtype}.npz", dtype=dtype)
        (tmp_path / f"{dtype}.background.npz").write_bytes(background)
        assert list(find_backgrounds(models.load(weights=path), [LAYER])) == [LAYER]


def test_the_judge_looks_at_crops_of_an_image():
    image = np.zeros((90, 160, 3), np.float32)
    image[:30, 140:] = 255
    seen = crops(image)
    assert seen.shape == (11, 224, 224, 3) and seen[0].max() == 255
    bright = [crop.mean() > 1 for crop in seen]
    judged = probabilities(lambda images: mx.array([[0.0, 1.0]] * len(images)), image)
    assert judged.shape == (11, 2) and np.allclose(judged[:, 1], np.e / (np.e + 1))
    assert bright == [True, False, False, False, True, False, False, True, False, False, False]
