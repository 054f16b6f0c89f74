"""The option table: what follows from one line in it, and defaults that depend on other options."""

from models.dreaming import options
from models.dreaming.options import CLASS_DEFAULTS, OPTIONS, parse_over, recipe_parser, settings
from models.dreaming.presets import preset
from models.dreaming.recipes import recipe_arguments, repeated_options

import dream
import dream_video


def test_a_class_has_defaults_of_its_own(net):
    """Which give way to what is told, to a preset and to --visualize; recipes tell what differs from them."""
    name = ["--class", "monarch"]

    def parse(*words, look=None):
        return parse_over(dream.build_parser(), words, look or {})

    def meant(*words, look=None):
        args = parse(*words, look=look)
        return args.steps, args.step_size, args.lapnorm, args.smooth

    of_class = CLASS_DEFAULTS
    assert meant(*name) == tuple(of_class[key] for key in ("steps", "step_size", "lapnorm", "smooth"))
    assert meant(*name, "--lapnorm", "0", "--steps", "3") == (3, of_class["step_size"], 0, of_class["smooth"])
    assert meant() == meant("--layers", "conv2") == (10, 1.5, 0, 0)
    assert meant(*name, "--preset", "subtle", look=preset("subtle", net)) == (10, 1.5, 0, 0)
    assert meant(*name, "--visualize") == (200, 1.5, 0, 0)
    for words in (name, [*name, "--steps", "10"], [*name, "--lapnorm", "0"], [*name, "--visualize", "--steps", "10"]):
        options = vars(parse(*words))
        again = recipe_arguments(options)
        assert sorted(again) == sorted(words)
        assert vars(parse(*again)) == options
        assert vars(parse_over(dream.build_parser(), [], repeated_options(options))) == options


def test_a_new_option_is_one_line(monkeypatch):
    """It is in both scripts, in recipes, in --like, and an argument of deepdream()."""
    add = options.add_blend_options

    def with_another(parser):
        add(parser)
        parser.add_argument("--glow", type=float, default=0.5)

    monkeypatch.setattr(options, "add_blend_options", with_another)
    table = options.in_order(recipe_parser()._actions)
    assert list(table)[-1] == "glow" and list(table)[:-1] == list(OPTIONS)
    monkeypatch.setattr(options, "OPTIONS", table)
    args = dream.build_parser().parse_args(["--glow", "0.25"])
    assert settings(args)["glow"] == 0.25
    assert dream_video.parse_arguments(["photo.png", "--glow", "0.25"])[0].glow == 0.25
