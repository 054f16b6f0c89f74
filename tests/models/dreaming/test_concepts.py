"""What a folder shows: backgrounds, directions, saved concepts, and which network they belong to."""

import json
import shutil
from dataclasses import replace

import models
from models import fingerprint, weights_file
from models.dreaming import background, concepts, features
from models.dreaming.background import AXES, RIDGE, Background
from models.dreaming.concepts import Concept
from models.dreaming.objectives import objective_function
from models.dreaming.targets import Target, parse_targets

import mlx.core as mx
import numpy as np
import pytest
from conftest import write_grains

from dataset import center_crop
from dataset.cli import UsageError, UserError
from dataset.images import read_image, write_image

LAYER, DEEPER = "inception3a", "inception3b"


@pytest.fixture(autouse=True)
def elsewhere(here, request):
    """Features are kept in the current folder."""
    if "own" in request.fixturenames:
        request.getfixturevalue("few_backgrounds")


def concept_at(net, layer=LAYER, name="slugs", seed=0):
    direction = np.random.default_rng(seed).normal(size=net.layer_info[layer][0])
    return concepts.new_concept(net, name, layer, direction, 0.1 * direction, 3)


# --- The mathematics ---


def test_whitening_is_the_inverse_of_the_covariance_with_its_ridge():
    rng = np.random.default_rng(0)
    factor, rest = rng.normal(size=(90, AXES)).astype(np.float16), rng.uniform(0, 1, 90).astype(np.float32)
    covariance = factor.astype(np.float64) @ factor.astype(np.float64).T + np.diag(rest)
    ridge = RIDGE * np.trace(covariance) / 90 * np.eye(90)
    difference = rng.normal(size=90)
    found = Background(np.zeros(90), factor, rest).whiten(difference)
    np.testing.assert_allclose(found, np.linalg.solve(covariance + ridge, difference), rtol=1e-9)


def test_statistics_hold_the_covariance_in_64_axes_and_a_rest():
    rng = np.random.default_rng(1)
    features = (rng.normal(size=(700, 30)) @ rng.normal(size=(30, 100)) + 5).astype(np.float16)
    found = background.statistics(features)
    wanted = np.cov(features.T.astype(np.float64), bias=True)
    assert found.factor.shape == (100, AXES) and found.factor.dtype == np.float16
    np.testing.assert_allclose(found.mean, features.mean(axis=0, dtype=np.float64), rtol=1e-5)
    whole = found.factor.astype(np.float64) @ found.factor.T.astype(np.float64) + np.diag(found.rest)
    np.testing.assert_allclose(whole, wanted, atol=2e-3 * wanted.max())
    few = background.statistics(rng.normal(size=(9, 8)))
    assert few.factor.shape == (8, AXES) and not few.factor[:, 8:].any()


def test_the_direction_leaves_out_what_photographs_differ_in_anyway(own):
    channels = own.layer_info[LAYER][0]
    mean, factor = np.ones(channels, np.float32), np.zeros((channels, AXES), np.float16)
    factor[0, 0] = 100.0  # photographs vary much in the first channel
    ordinary = Background(mean, factor, np.full(channels, 0.01, np.float32))
    features = np.tile(mean, (4, 1))
    features[:, :2] += 1
    concept = concepts.concept_of(own, "slugs", LAYER, features, ordinary)
    assert np.linalg.norm(concept.direction.astype(float)) == pytest.approx(1, abs=1e-3)
    assert concept.direction[1] > 1.2 * concept.direction[0] > 0 and abs(concept.direction[2]) < 1e-3
    assert concept.offset == pytest.approx(concept.direction.astype(float).sum())
    with pytest.raises(UserError, match="differs in nothing"):
        concepts.concept_of(own, "slugs", LAYER, np.tile(mean, (4, 1)), ordinary)


def test_the_objective_of_a_concept(own):
    image = np.random.default_rng(3).uniform(0, 255, (32, 40, 3)).astype(np.float32)
    concept = concept_at(own)
    along = np.array(own.activations(image[None], [LAYER])[LAYER]) @ concept.direction.astype(np.float32)
    concept = replace(concept, offset=float(np.median(along)))  # some positions above it, some below
    z = along - np.float32(concept.offset)
    for weight, linear, wanted in ((2, False, np.mean(np.maximum(z, 0) ** 2 + 0.001 * z)), (-1, True, np.mean(z))):
        objective = objective_function(own, [Target(LAYER, weight=weight, linear=linear, concept=concept)])
        assert objective(mx.array(image)).item() == pytest.approx(weight * wanted, rel=1e-4)


# --- Whose features ---


def test_features_are_told_by_their_parameters_alone(own, tmp_path):
    arrays, metadata = weights_file.read(own.path)
    digest = fingerprint.feature_digest(own)
    head = {key: array for key, array in arrays.items() if key.startswith("fc.")}
    for name, changes, dtype in (
        ("float32", {}, "float32"),
        ("head", {key: array + 1 for key, array in head.items()}, "float16"),
    ):
        weights_file.write(tmp_path / f"{name}.npz", arrays | changes, metadata, dtype)
        assert fingerprint.feature_digest(models.load(weights=tmp_path / f"{name}.npz")) == digest
    deep = "inception5b.branch1.conv.weight"
    weights_file.write(tmp_path / "deep.npz", arrays | {deep: arrays[deep] * 2}, metadata)
    assert fingerprint.feature_digest(models.load(weights=tmp_path / "deep.npz")) != digest
    paths = fingerprint.feature_paths("resnet50")
    assert "layer4.2.conv3.weight" in paths and "bn1.running_mean" in paths and "fc.weight" not in paths
    assert {f"features.{i}.weight" for i in (0, 3, 6, 8, 10)} <= set(fingerprint.feature_paths("alexnet"))
    assert not any(path.startswith(("aux", "fc")) for path in fingerprint.feature_paths("googlenet"))


def test_a_coarse_file_carries_the_digest_of_what_it_was_made_from(own, tmp_path):
    arrays, metadata = weights_file.read(own.path)
    digest = fingerprint.digest_of_arrays(arrays, "googlenet")
    for dtype in ("int8", "bfloat16"):
        weights_file.write(tmp_path / "coarse.npz", arrays, metadata.replace(feature_digest=digest), dtype)
        assert fingerprint.feature_digest(models.load(weights=tmp_path / "coarse.npz")) == digest
    # another file's word is not taken where the numbers themselves are there
    weights_file.write(tmp_path / "exact.npz", arrays, metadata.replace(feature_digest="0" * 64))
    assert fingerprint.feature_digest(models.load(weights=tmp_path / "exact.npz")) == digest


# --- Backgrounds ---


def test_a_background_of_photographs_is_kept_beside_the_weights(own, photographs, slugs, capsys):
    assert background.find_backgrounds(own, [LAYER]) == {}
    made = background.find_backgrounds(own, [LAYER], photographs, quiet=True)
    kept = own.path.with_name("own_mlx.background.npz")
    assert kept.exists() and list(made) == [LAYER]
    found = background.find_backgrounds(own, [LAYER])
    np.testing.assert_array_equal(found[LAYER].mean, made[LAYER].mean)
    assert background.background_layers(own) == [LAYER, DEEPER]
    seen = features.image_features(own, features.list_images(photographs), [LAYER], quiet=True)[LAYER]
    np.testing.assert_allclose(made[LAYER].mean, seen.mean(axis=0, dtype=np.float64), rtol=1e-5)
    with np.load(kept) as arrays:
        assert arrays["pictures"] == 6 and arrays[f"{LAYER}.factor"].shape[1] == AXES

    before = kept.stat().st_mtime_ns
    background.find_backgrounds(own, [LAYER], photographs)
    assert kept.stat().st_mtime_ns == before  # not made again for the same photographs
    background.find_backgrounds(own, ["conv3"], photographs, quiet=True)
    assert background.background_layers(own)[:2] == ["conv3", LAYER]  # added to what was there
    write_grains(photographs, 7, seed=2)
    background.find_backgrounds(own, [LAYER], photographs)
    assert "13 photographs make a rough background" in capsys.readouterr().err
    assert "conv3" not in background.background_layers(own)
    kept.unlink()


def test_a_background_of_other_weights_is_left_alone(own, photographs, tmp_path):
    background.find_backgrounds(own, [LAYER], photographs, quiet=True)
    kept = own.path.with_name("own_mlx.background.npz")
    arrays, metadata = weights_file.read(own.path)
    arrays["conv1.conv.weight"] = arrays["conv1.conv.weight"] * 2
    weights_file.write(tmp_path / "other_mlx.npz", arrays, metadata)
    shutil.copy(kept, tmp_path / "other_mlx.background.npz")
    assert background.find_backgrounds(models.load(weights=tmp_path / "other_mlx.npz"), [LAYER]) == {}
    kept.unlink()


def test_a_weights_file_may_hold_its_background(own, tmp_path):
    arrays, metadata = weights_file.read(own.path)
    channels = own.layer_info[LAYER][0]
    parts = {"mean": np.ones(channels), "factor": np.ones((channels, AXES), np.float16), "rest": np.zeros(channels)}
    extras = {f"background.{LAYER}.{name}": array for name, array in parts.items()}
    path = tmp_path / "trained.npz"
    weights_file.write(path, arrays, metadata, extras=extras)
    net = models.load(weights=path)
    assert background.background_layers(net) == [LAYER]
    for file, version in ((path, 2), (own.path, 1)):
        with np.load(file) as entries:
            assert json.loads(entries["__metadata__"].tobytes())["format"] == version
    weights_file.write(path, arrays, metadata, extras=extras | {f"background.{LAYER}.rest": np.zeros(3)})
    with pytest.raises(UserError, match="does not fit the network"):
        background.find_backgrounds(models.load(weights=path), [LAYER])


@pytest.mark.parametrize("name", ["googlenet_starter", "googlenet_bvlc", "vgg16", "alexnet"])
def test_backgrounds_that_come_along_fit_their_networks(name):
    model = name.replace("_starter", "")
    net = models.registry.entry(model).build(10)
    with np.load(models.WEIGHTS / f"{name}.background.npz") as arrays:
        found = background.parse_background(net, name, dict(arrays))
        assert len(background.told(dict(arrays), "digest")) == 64
    layers = [net.resolve(layer) for layer in models.registry.entry(model).concept_layers]
    assert sorted(found) == sorted(layers) and all((found[layer].rest >= 0).all() for layer in layers)


def test_the_bundled_network_has_its_background(net):
    assert background.background_layers(net) == list(models.registry.entry("googlenet").concept_layers)


# --- Folders ---


def test_every_way_to_name_images(own, slugs, photographs):
    for path, count in ((slugs, 3), (slugs / "00.png", 1)):
        found = concepts.make_concepts(own, path, [LAYER, "conv3", LAYER], photographs, quiet=True)
        assert [concept.layer for concept in found] == [LAYER, "conv3"]
        assert {concept.images for concept in found} == {count} and found[0].name == path.stem
    (usual,) = concepts.make_concepts(own, slugs, None, photographs, quiet=True)
    assert usual.layer == "inception5b" and usual.origin == f"3 images of {slugs}"
    own.path.with_name("own_mlx.background.npz").unlink()


def test_features_are_those_of_a_validation_image_and_kept(own, slugs, monkeypatch, capsys):
    paths = features.list_images(slugs)
    found = features.image_features(own, paths, [LAYER, "fc"])
    image = np.rint(center_crop(read_image(paths[0]), 160))[None]
    wanted = own.activations(image, [LAYER, "fc"])
    np.testing.assert_allclose(found[LAYER][0], np.array(wanted[LAYER]).mean(axis=(0, 1, 2)), rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(found["fc"][0], np.array(wanted["fc"])[0], rtol=2e-3, atol=1e-3)
    assert "features" in capsys.readouterr().err

    monkeypatch.setattr("dataset.features.Loader", None)  # it would fail
    again = features.image_features(own, paths, [LAYER, "fc"])
    np.testing.assert_array_equal(again[LAYER], found[LAYER])
    monkeypatch.undo()
    monkeypatch.chdir(slugs.parent)
    write_image(slugs / "00.png", np.zeros((50, 50, 3)))
    changed = features.image_features(own, paths, [LAYER, "fc"], quiet=True)
    assert np.abs(changed[LAYER][0] - found[LAYER][0]).max() > 0.01


def test_unusable_images_are_left_out_and_told(own, slugs, tmp_path, capsys):
    (slugs / "01.png").write_bytes((slugs / "01.png").read_bytes()[:200])
    write_image(slugs / "03.png", np.zeros((31, 80, 3)))
    rows = features.image_features(own, features.list_images(slugs), [LAYER])[LAYER]
    assert len(rows) == 2
    told = capsys.readouterr().err
    assert "01.png: broken" in told and "03.png: 80 x 31 pixels are too few, 32 a side are needed" in told

    for i in range(4):
        write_image(tmp_path / "tiny" / f"{i}.png", np.zeros((20, 20, 3)))
    with pytest.raises(UserError, match=r"0.png: 20 x 20 pixels are too few.*; and 3 more like it"):
        features.image_features(own, features.list_images(tmp_path / "tiny"), [LAYER], quiet=True)
    assert not list((tmp_path / "runs/.cache").glob("*tmp*"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: there is no image in this folder"):
        concepts.make_concepts(own, tmp_path / "empty")
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        concepts.make_concepts(own, tmp_path / "nowhere")


def test_without_background_the_classifier_says_what_images_show(own, slugs, tmp_path, capsys):
    (concept,) = concepts.make_concepts(own, slugs)
    assert "no background for these weights" in capsys.readouterr().err
    z = features.image_features(own, features.list_images(slugs), ["fc"])["fc"].mean(axis=0, dtype=np.float64)
    wanted = np.array(own.fc.weight, np.float64).T @ (z - z.mean())
    np.testing.assert_allclose(concept.direction, wanted / np.linalg.norm(wanted), atol=1e-4)
    assert concept.layer == "inception5b" and concept.offset == 0

    with pytest.raises(UserError, match=f"no background for {LAYER} is known.*--background FOLDER"):
        concepts.make_concepts(own, slugs, [LAYER])
    arrays, metadata = weights_file.read(own.path)
    bare = {key: array for key, array in arrays.items() if not key.startswith("fc.")}
    weights_file.write(tmp_path / "bare.npz", bare, metadata.replace(num_classes=0, classes=None))
    with pytest.raises(UserError, match="no background for inception5b is known"):
        concepts.make_concepts(models.load(weights=tmp_path / "bare.npz"), slugs)


# --- Texts and files ---


def test_weights_of_concepts_and_names_with_an_equals_sign(tmp_path):
    (tmp_path / "a=2").mkdir()
    assert concepts.split_weight("a=2") == ("a=2", 1.0)
    assert concepts.split_weight("a=2=-0.5") == ("a=2", -0.5)
    assert concepts.split_weight("b=3") == ("b", 3.0) and concepts.split_weight("b") == ("b", 1.0)
    for wrong in ("b=x", "=2", "b=nan", "b=inf"):
        with pytest.raises(UsageError, match="is not PATH"):
            concepts.split_weight(wrong)


def test_a_saved_concept_is_read_again(own, tmp_path):
    concept = concept_at(own, "inception5b")
    concepts.write_concept(tmp_path / "slugs.npz", concept)
    assert (tmp_path / "slugs.npz").stat().st_size < 5000
    (read,) = concepts.parse_concepts(own, f"{tmp_path / 'slugs.npz'}=-2")
    assert read.weight == -2 and concepts.saved_fields(read) == concepts.saved_fields(concept)
    np.testing.assert_array_equal(read.direction, concept.direction)
    assert concepts.parse_concepts(own, [tmp_path / "slugs.npz"], ["inception_5b/output"])[0].layer == "inception5b"
    with pytest.raises(UsageError, match="was taken at inception5b, not at inception4e"):
        concepts.parse_concepts(own, [tmp_path / "slugs.npz"], ["inception4e"])
    again = concepts.from_json(concepts.to_json(concept))
    np.testing.assert_array_equal(again.direction, concept.direction)


def test_a_concept_of_other_weights_is_refused(own, tmp_path):
    concept = Concept("slugs", LAYER, np.ones(256, np.float16), 0.0, 3, "0" * 64, "")
    concepts.write_concept(tmp_path / "slugs.npz", concept)
    for given in (concept, tmp_path / "slugs.npz"):
        with pytest.raises(UserError, match="made with other weights"):
            parse_targets(own, concepts=[given])


def test_files_that_are_no_concepts(own, tmp_path):
    path = tmp_path / "slugs.npz"
    concepts.write_concept(path, concept_at(own))
    whole = path.read_bytes()
    good = {"direction": np.ones(256, np.float16), "__concept__": np.frombuffer(b"{}", np.uint8)}
    long = np.frombuffer(b"[" * 100_000, np.uint8)
    for content, words in (
        (whole[:1000], "cut off"),
        (b"", "empty"),
        (good, "damaged"),
        (good | {"__concept__": long}, "damaged"),
        ({"direction": np.ones(256)}, "no concept"),
    ):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.savez_compressed(path, **content)
        with pytest.raises(UserError, match=words) as told:
            concepts.parse_concepts(own, path)
        assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="no such file"):
        concepts.parse_concepts(own, tmp_path / "none.npz")
    for data in (None, {}, {"direction": "!"}, {**concepts.to_json(concept_at(own)), "images": "3"}):
        with pytest.raises(UserError, match="cannot be read"):
            concepts.from_json(data)


def test_what_a_recipe_remembers_stands_for_the_path(own, tmp_path):
    concept = concept_at(own)
    (found,) = concepts.parse_concepts(own, "gone/slugs=0.5", remembered={"gone/slugs": [concept]})
    assert found.weight == 0.5 and found.direction is concept.direction
    for changed, layers in ((concept, ["conv3"]), (replace(concept, weights="0"), None)):
        with pytest.raises(UserError, match="no such file"):
            concepts.parse_concepts(own, "gone/slugs", layers, remembered={"gone/slugs": [changed]})


def test_targets_of_concepts(own):
    first, second = concept_at(own), concept_at(own, "conv3", "leaves")
    targets = parse_targets(own, None, ["0"], [first, second])
    assert [target.layer for target in targets] == [LAYER, "conv3", "fc"]
    assert [target.concept for target in targets] == [first, second, None]
    for layers in (["fc"], ["avgpool"], ["inception4c:3"], ["inception4c=2"]):
        with pytest.raises(UsageError, match="--layers"):
            parse_targets(own, layers, concepts=["."])


def test_a_background_that_cannot_be_kept_is_said_once_and_used(own, photographs, monkeypatch, capsys):
    def refused(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(background, "atomic_write", refused)
    assert LAYER in background.find_backgrounds(own, [LAYER], photographs)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "not kept" in line]
    assert line.endswith(f"{background.kept_path(own)}: Read-only file system")
