"""Recipes: what an image tells of how it was made."""

from models.dreaming.options import CLASS_DEFAULTS, OPTIONS, parse_over
from models.dreaming.recipes import command, read_recipe, recipe_arguments, repeated_options, save_options, to_arguments

import pytest
from conftest import noise_image, sky_image
from PIL import Image

import dream
from dataset.cli import UsageError, UserError
from dataset.images import write_image


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_picture_carries_its_recipe(suffix, tmp_path):
    path = tmp_path / f"dream.{suffix}"
    recipe = {"version": "1", "options": {"layers": ["inception3a:1=0.5"], "seed": 3}}
    write_image(path, sky_image(), **save_options(path, recipe))
    assert read_recipe(path) == {"program": "DeepDream-MLX", **recipe}


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"program": "DeepDream-MLX"}', "{" * 5000])
def test_pictures_without_a_recipe(text, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("DeepDream-MLX", text)
    Image.fromarray(noise_image(4, 4)).save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(UserError, match="no recipe"):
        read_recipe(tmp_path / "x.png")


def test_a_preset_that_does_without_decorrelation_is_told_so():
    """Since --class would bring it."""
    words = recipe_arguments({"classes": ["torch"], "steps": 20, "decorrelate": None})
    assert words[:2] == ["--class", "torch"] and "--no-decorrelate" in words


def test_later_defaults_do_not_change_what_like_repeats(monkeypatch):
    """A recipe holds the value of every option, so also of those that were left at defaults that have changed."""
    monkeypatch.delitem(CLASS_DEFAULTS, "decorrelate")
    made = recipe_options_of("--class", "monarch")
    monkeypatch.setitem(CLASS_DEFAULTS, "steps", 33)
    monkeypatch.setitem(CLASS_DEFAULTS, "decorrelate", True)
    now = parse_over(dream.build_parser(), ["--class", "monarch"])
    assert (now.steps, now.decorrelate) == (33, True)
    again = parse_over(dream.build_parser(), [], repeated_options(made))
    assert (again.steps, again.decorrelate, again.lapnorm) == (20, None, 4)


def recipe_options_of(*words):
    args = parse_over(dream.build_parser(), words)
    return {name: getattr(args, name) for name in OPTIONS}


def test_a_hostile_recipe_gives_no_other_options():
    assert to_arguments({"output": "/etc/x", "steps": 3, "like": "y"}, {}) == ["--steps", "3"]
    assert repeated_options({"output": "/etc/x", "steps": 3, "like": "y", "octaves": None}) == {"steps": 3}
    with pytest.raises(UsageError):
        to_arguments({"layers": ["conv1", "--output=x.png"]}, {})
    with pytest.raises(UsageError):
        repeated_options({"steps": "many"})
    assert command("dream.py", ["my photo.png"], ["--steps", "3"]) == "python dream.py 'my photo.png' --steps 3"
