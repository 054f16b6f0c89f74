"""Numbers that no option has a use for are told in one line, in every script."""

import argparse

from models.training.options import build_parser as training_parser

import pytest

import calc_cm
import convert
import dream
import dream_video
from dataset import prepare
from dataset.cli import UsageError

PARSERS = {
    "dream": dream.build_parser,
    "dream_video": lambda: dream_video.build_parser()[0],
    "train_dream": training_parser,
    "convert": convert.build_parser,
    "calc_cm": calc_cm.build_parser,
    "prepare": prepare.build_parser,
}
NO_NUMBERS = ("nan", "inf", "-inf", "1e400", "x", "", "--", "1\n2")


def numeric(parser):
    """Return the options of one number."""
    types = [(action, getattr(action.type, "__name__", "")) for action in parser._actions]
    return [action for action, name in types if action.option_strings and "number" in name and action.nargs is None]


@pytest.mark.parametrize("script", PARSERS)
def test_what_is_no_number_is_told(script):
    parser = PARSERS[script]()
    given = ["x"] if any(not action.option_strings and action.nargs != "*" for action in parser._actions) else []
    whole = [action for action in numeric(parser) if "whole" in action.type.__name__]
    cases = [(action, text) for action in numeric(parser) for text in NO_NUMBERS]
    for action, text in cases + [(action, str(10**30)) for action in whole]:
        with pytest.raises(UsageError) as caught:
            parser.parse_args([*given, f"{action.option_strings[-1]}={text}"])
        assert action.option_strings[-1] in str(caught.value), text


def test_every_option_of_a_value_wants_one():
    """argparse would take the -- of --steps=-- away, and leave an empty list."""
    for action in dream.build_parser()._actions:
        if action.option_strings and action.nargs is None and not isinstance(action, argparse._StoreConstAction):
            with pytest.raises(UsageError):
                dream.build_parser().parse_args([f"{action.option_strings[-1]}=--"])
