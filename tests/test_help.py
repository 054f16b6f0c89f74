"""--help of every script: short, in 80 columns, quick, and with examples that its own parser takes."""

import resource
import shlex

from models.training import options as training_options

import pytest
from conftest import run

import calc_cm
import convert
import dream
import dream_video
from dataset import prepare

PARSERS = {
    "dream.py": dream.build_parser,
    "dream_video.py": lambda: dream_video.build_parser()[0],
    "train_dream.py": training_options.build_parser,
    "convert.py": convert.build_parser,
    "calc_cm.py": calc_cm.build_parser,
    "dataset/prepare.py": prepare.build_parser,
}
LINES, COLUMNS, EXAMPLES = 110, 80, 3
SECONDS = 0.4  # of the processor


@pytest.fixture(params=PARSERS)
def script(request):
    return request.param


def test_help_fits_a_terminal_and_tells_every_option(script):
    parser = PARSERS[script]()
    lines = parser.format_help().splitlines()
    assert len(lines) <= LINES and max(map(len, lines)) <= COLUMNS
    assert lines[-EXAMPLES - 1] == "examples:" and lines[0].startswith(f"usage: {script} ")
    assert [action.dest for action in parser._actions if len((action.help or "").split()) < 3] == []


def test_examples_are_taken_by_the_parser(script):
    parser = PARSERS[script]()
    assert len(parser.examples) == EXAMPLES
    for example in parser.examples:
        python, name, *words = shlex.split(example)
        assert (python, name) == ("python", script)
        parser.parse_args(words)


def test_help_answers_at_once(script):
    """The least of three times counts: other programs may run beside."""

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        status, out, err = run(script, "--help")
        assert (status, err) == (0, "") and out.startswith("usage: ")
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    assert any(seconds() < SECONDS for _ in range(3))


def test_options_are_written_briefly(script):
    """Whatever the Python: argparse itself wrote "-o OUT, --output OUT" up to 3.12."""
    text = PARSERS[script]().format_help()
    assert "-o, --output " in text and ", --no-" not in text and "{" not in text.replace('{"frame"', "")
