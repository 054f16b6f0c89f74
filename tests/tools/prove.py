"""Prove what takes longer than a test may.

    python tests/tools/prove.py mutations --count 100000 --seed 0      # damaged files: a result or one line
    python tests/tools/prove.py mutations pictures --first 123 --count 1 --keep FOLDER     # one of them again
    python tests/tools/prove.py kills --count 200 --seed 0             # killed runs: the next ends as if undisturbed
    python tests/tools/prove.py disk                                   # full, read-only and vanishing disks
    python tests/tools/prove.py places                                 # odd homes, locales, names, terminals, clocks

The figures come at the end; the exit status is 1 if anything was not as promised. Half the count with another seed is
half the proof: pieces add up.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import mutations  # noqa: E402

KINDS = {}  # further kinds of mutations, beside those of mutations.kinds_of()


def mutate(args):
    kinds = mutations.kinds_of() | KINDS
    check_kinds(args.kinds, kinds)
    return mutations.mutations(args, kinds)


def kill(args):
    import kills
    import material

    check_kinds(args.kinds, material.JOBS)
    return kills.kills(args)


def fill(args):
    import disk

    check_kinds(args.kinds, disk.KINDS)
    return disk.disk(args)


def visit(args):
    import places

    check_kinds(args.kinds, places.KINDS)
    return places.places(args)


def check_kinds(given, known):
    unknown = sorted(set(given) - set(known))
    if unknown:
        sys.exit(f"prove.py: error: there is no kind {unknown[0]}: they are {', '.join(known)}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True, metavar="WHAT")
    for name, run, count, text in (
        ("mutations", mutate, 1000, "damaged files give a result, or one line"),
        ("kills", kill, 28, "killed runs: the next one ends as if nothing had happened"),
        ("disk", fill, 0, "full, read-only and vanishing disks: one line, and the old file is intact"),
        ("places", visit, 0, "odd homes, locales, names, terminals and clocks"),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("kinds", nargs="*", metavar="KIND", help="some of them (default: all)")
        how_many = "how many: of all kinds together, or of each that is named" if name == "mutations" else "how many"
        verb.add_argument("--count", type=int, default=count, help=f"{how_many} (0: each once; default: {count})")
        verb.add_argument("--seed", type=int, default=0)
        verb.add_argument("--first", type=int, default=0, help="number of the first")
        verb.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
        verb.add_argument("--keep", type=Path, metavar="FOLDER", help="leave what failed, or was damaged, there")
        verb.set_defaults(run=run)
    args = parser.parse_args(arguments)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
