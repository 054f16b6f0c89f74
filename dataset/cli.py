"""What the five scripts share at the command line: a parser, errors in one line, exit statuses, progress.

Nothing heavy is imported here, so that `--help` answers at once.
"""

import argparse
import codecs
import contextlib
import difflib
import os
import signal
import sys
import threading
from pathlib import Path

from dataset import startup

ENDING = threading.Event()  # set when a signal has told this process to end


class UserError(Exception):
    """Something the user can put right. Its text is one line that says what is wrong and what to do.

    `status` is the exit status: 2 where the command line is at fault, otherwise 1.
    """

    status = 1


class UsageError(UserError):
    status = 2


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, no abbreviated options, and help that shows every default and ends in examples."""

    def __init__(self, examples=(), **options):
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self.examples = examples  # command lines

    def format_help(self):
        examples = ["", "examples:", *(f"  {example}" for example in self.examples)] if self.examples else []
        return super().format_help() + "".join(f"{line}\n" for line in examples)

    def _get_values(self, action, arg_strings):
        if action.option_strings and "--" in arg_strings:  # of which argparse would make an empty list
            self.error(f"argument {'/'.join(action.option_strings)}: expected a value, not --")
        return super()._get_values(action, arg_strings)

    def _print_message(self, message, file=None):
        """Print help as anything else: argparse's own keeps a full disk to itself."""
        print(message, end="", file=file or sys.stderr)

    def error(self, message):
        raise UsageError(f"{message} (see {self.prog} --help)")


class HelpFormatter(argparse.HelpFormatter):
    """80 columns; the default goes at the end of an option's help, unless there is none or the text tells it."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=24, width=80)

    def _get_help_string(self, action):
        text = action.help or ""
        silent = any(action.default is nothing for nothing in (None, False, argparse.SUPPRESS)) or action.default == []
        if silent or "%(default)" in text or not action.option_strings:
            return text
        if isinstance(action.default, (list, tuple)):
            return f"{text} (default: {' '.join(map(str, action.default))})"
        return f"{text} (default: {'on' if action.default is True else '%(default)s'})"

    def _format_action_invocation(self, action):
        """Write "-o, --output OUT" and "--[no-]invert" in place of the longer forms of Pythons before 3.13."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"--[no-]{action.option_strings[0].removeprefix('--')}"
        metavar = "" if action.nargs == 0 else " " + self._format_args(action, action.dest.upper())
        return ", ".join(action.option_strings) + metavar

    def _format_args(self, action, default_metavar):
        if action.nargs == "+":  # "NAME ...", not argparse's "NAME [NAME ...]"
            return f"{self._metavar_formatter(action, default_metavar)(1)[0]} ..."
        return super()._format_args(action, default_metavar)


LARGEST = 2**31 - 1  # of whole numbers without a bound of their own: what arithmetic in C takes


def whole_number(least, most=float("inf")):
    """A type for argparse."""

    def parse(text):
        value = int(text)
        if least <= value <= most and value > LARGEST and most == float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is too large a number")
        if not least <= value <= most:
            raise ValueError
        return value

    parse.__name__ = f"whole number of at least {least}" + (f" and at most {most}" if most < float("inf") else "")
    return parse


def number(above=None, least=None, most=float("inf"), below=float("inf")):
    """A type for argparse: a finite number."""

    def parse(text):
        value = float(text)
        if not (value > above if least is None else value >= least) or not value <= most or not value < below:
            raise ValueError
        return value

    low = f"above {above}" if least is None else f"of at least {least}"
    high = {most: f" and at most {most}", below: f" and below {below}"}
    parse.__name__ = f"number {low}" + high[min(high)] * (min(high) < float("inf"))
    return parse


seed_number = whole_number(0, 2**64 - 1)  # a type for argparse


def npz_path(text):
    """A type for argparse: where an .npz file is to be written."""
    if not text.endswith(".npz"):
        raise argparse.ArgumentTypeError(f"{text}: its name must end in .npz")
    return Path(text)


def picture_size(text):
    width, height = (int(side) for side in text.lower().split("x"))
    if min(width, height) < 1 or max(width, height) > 30000:
        raise ValueError
    return f"{width}x{height}"


def run(main):
    """Call main() as the whole of a script, and exit with its status.

    A UserError, an OSError (full disk, no permission) or running out of memory ends in one line on stderr;
    Ctrl-C exits with 130, after main's own clean-up; a SIGTERM cleans up like Ctrl-C and exits with 143.
    """
    script = Path(sys.argv[0]).name

    def terminated(signum, frame):
        ENDING.set()
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, terminated)
    startup.raise_once()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="escape-names")
    try:
        status = call(main)
        sys.stdout.flush()
    except UserError as error:
        status = print_error(script, error, error.status)
    except KeyboardInterrupt:
        status = print_error(script, "interrupted", 130, kind="")
    except BrokenPipeError:  # the reader of our output, `head` say, has gone
        status = 1
    except (OSError, MemoryError) as error:
        status = print_error(script, error_text(error), 1)
    except RuntimeError as error:
        if not is_memory_error(error):
            raise
        status = print_error(script, error_text(error), 1)
    startup.ignore()
    discard_output()
    sys.exit(status)


def call(main):
    """Return the exit status of main(), which --help and signals end by a SystemExit."""
    try:
        return main() or 0
    except SystemExit as ended:
        if not isinstance(ended.code, (int, type(None))):
            raise
        return ended.code or 0


def discard_output():
    """Give up what stdout does not take, of which Python would complain as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def error_text(error, path=None):
    """Return what an error says to the user in one line, with the file's name where that is known."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        path = error.filename2 or error.filename or path  # the second: what was to be replaced
        text = error.strerror or str(error)
    else:
        text = (
            "not enough memory; try a smaller picture (--max-size) or batch" if is_memory_error(error) else str(error)
        )
    return f"{os.fsdecode(path)}: {text}" if path else text


def is_memory_error(error):
    """Return whether memory has run out; MLX says so in a RuntimeError."""
    words = ("malloc", "allocate", "out of memory", "outofmemory", "memory allocation", "insufficient memory")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def escape_names(error):
    """Let through what is no text in a file's name, and describe what the terminal cannot show."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error("escape-names", escape_names)


def print_error(script, message, status, kind="error: "):
    line = " ".join(str(message).split())
    print(f"{script}: {kind}{line}", file=sys.stderr)
    return status


def log(message, quiet=False):
    """One line on stderr that is no error."""
    if not quiet:
        with above_bars():
            print(message, file=sys.stderr)


def print_result(line):
    """Print a line on stdout, at once, above the progress bars that are shown meanwhile."""
    with above_bars():
        print(line, flush=True)


def above_bars():
    """Take the bars off the terminal for as long as the block prints."""
    tqdm = sys.modules.get("tqdm")
    return tqdm.tqdm.external_write_mode() if tqdm else contextlib.nullcontext()


def progress(total=None, quiet=False, **options):
    """A tqdm bar on stderr with its ETA; `quiet` silences it. Use it as a context manager and call update()."""
    from tqdm import tqdm

    options.setdefault("dynamic_ncols", True)
    return tqdm(total=total, disable=quiet, file=sys.stderr, **options)


def suggest(name, names):
    """The end of an error line about a wrong name: the nearest right ones."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(names[:8])}" + " ..." * (len(names) > 8)
