"""What a zoom with a schedule dreams of (dream_video.py --schedule)."""

from dataset.camera import read_schedule
from dataset.cli import UsageError

from .concepts import parse_concepts
from .targets import chosen_targets, own_layer, parse_targets


def names_concepts(path):
    """Whether the schedule in a file names concepts; not so for None."""
    return path is not None and any("concepts" in entry for entry in read_schedule(path))


def schedule_targets(net, args, options, schedule):
    """Return (the targets of all frames, whether the schedule changes them); what folders show is found out here.

    options: deepdream's, in which the targets of the first frame are put; in the schedule, concepts take the place of
    their paths.
    """
    concepts = [path for entry in schedule for path in entry.get("concepts", [])]
    layers = [target for entry in schedule for target in entry.get("layers", [])]
    if not concepts and not layers:
        return chosen_targets(net, args), False
    if not concepts and not args.concepts:
        if not args.layers and not args.classes:
            options["layers"] = [own_layer(net)]  # the network's own, which has to be named to be blended
        return parse_targets(net, [*(options["layers"] or []), *layers], args.classes), True
    if layers:
        raise UsageError(f"{args.schedule}: layers do not go with concepts; --layers says where those are looked for")

    def found(paths):
        return parse_concepts(net, paths, args.layers, args.background, args.quiet)

    for entry in schedule:
        if "concepts" in entry:
            entry["concepts"] = found(entry["concepts"])
    scheduled = [entry["concepts"] for entry in schedule if "concepts" in entry]
    options |= {"layers": None, "concepts": found(args.concepts) if args.concepts else scheduled[0]}
    return parse_targets(net, None, args.classes, [*options["concepts"], *sum(scheduled, [])]), True
