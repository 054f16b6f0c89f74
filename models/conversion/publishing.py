"""Sends weights to the Hugging Face hub, with a model card written from their metadata, for convert.py --publish."""

import re
from pathlib import Path

from dataset.cli import UsageError, UserError
from dataset.files import sha256

from .. import weights_file
from ..dreaming.presets import PRESETS
from ..registry import REGISTRY

ROOT = Path(__file__).resolve().parents[2]
BANNER = "assets/deepdream_header.jpg"
LICENSES = {"apache-2.0", "bsd-3-clause", "mit"}  # that the hub knows by these names, and origins end in
COLUMNS = 3  # of the gallery

CARD = """\
---
library_name: mlx
pipeline_tag: image-to-image
{license}
thumbnail: https://huggingface.co/{repository}/resolve/main/{banner}
tags:
{tags}
---

![DeepDream-MLX]({banner})

# {title}

Weights for DeepDream-MLX: DeepDream as it was in 2015, on Apple's MLX, without Caffe and without Torch. It runs on
Apple silicon, on Linux CPUs and on NVIDIA GPUs. One `.npz` a network, read without pickle:

```sh
hf download {repository} {first} --local-dir models/weights
python dream.py photo.jpg --weights models/weights/{first}
```

## Looks

Each by `python dream.py photo.jpg --preset NAME`. The pictures are of the network that DeepDream-MLX brings along;
other networks dream of what they know.

{looks}

## Files

| file | network | classes | dreams of | numbers | size |
| --- | --- | --- | --- | --- | --- |
{rows}

Each file carries its input statistics, its classes and its origin: `python convert.py --info FILE` prints them.

## Origin and terms

{origins}
"""


def publish(repository, paths, send=False):
    """Upload weights files, a card and its pictures to OWNER/NAME; without `send`, print what would go there.

    Raises UserError.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"--publish wants OWNER/NAME, not {repository!r}")
    paths = [Path(path) for path in paths]
    if len({path.name for path in paths}) < len(paths):
        raise UsageError("two of the files have the same name")
    text = card(repository, paths)
    pictures = [BANNER, *(gallery_picture(look) for look in PRESETS)]
    print(f"{repository}:")
    for path in paths:
        print(f"  {path.name}  {path.stat().st_size / 1e6:.1f} MB")
    megabytes = sum((ROOT / name).stat().st_size for name in pictures) / 1e6
    print(f"  {len(pictures)} pictures for the card, in assets/  {megabytes:.1f} MB")
    print(f"  README.md:\n\n{text}")
    if not send:
        print("Nothing was sent; --yes sends it.")
        return
    files = {"README.md": text.encode()}
    files |= {path.name: str(path) for path in paths} | {name: str(ROOT / name) for name in pictures}
    print(upload(repository, files, f"Weights: {', '.join(path.name for path in paths)}"))


def upload(repository, files, message):
    """Commit {name in the repository: bytes, or the path of a file}; return the commit's address. Raises UserError."""
    import huggingface_hub

    operations = [huggingface_hub.CommitOperationAdd(name, content) for name, content in files.items()]
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        return api.create_commit(repository, operations, commit_message=message).commit_url
    except Exception as error:  # of the hub, of requests or of httpx, according to its version
        reason = " ".join(str(error.__cause__ or error).split())[:200] or type(error).__name__
        raise UserError(f"nothing was published: {reason} (is `hf auth login` done?)") from None


# --- The card ---


def card(repository, paths):
    """Write the README.md of a repository with these weights files."""
    known = {path: weights_file.read(path)[1] for path in paths}
    networks = dict.fromkeys(metadata.model for metadata in known.values())
    return CARD.format(
        repository=repository,
        title=repository.split("/")[1],
        license=license_fields(repository, known.values()),
        tags="\n".join(f"- {tag}" for tag in ("deepdream", "mlx", "feature-visualization", "art", *networks)),
        banner=BANNER,
        first=paths[0].name,
        looks=gallery(),
        rows="\n".join(table_row(file_cells(path, metadata)) for path, metadata in known.items()),
        origins="\n".join(origin(path, metadata) for path, metadata in known.items()),
    )


def license_fields(repository, known):
    """Return the front matter's lines about the licence: the one that all files name, else a link to their terms."""
    named = [
        {part.strip().lower() for part in re.split("[;,]", metadata.origin or "")} & LICENSES for metadata in known
    ]
    if common := set.intersection(*named):
        return f"license: {min(common)}"
    link = f"https://huggingface.co/{repository}#origin-and-terms"
    return f"license: other\nlicense_name: terms-of-each-file\nlicense_link: {link}"


def gallery():
    """Return a table of the looks: a row of pictures, a row of what they show, and so on."""
    looks = list(PRESETS.items())
    lines = []
    for start in range(0, len(looks), COLUMNS):
        row = looks[start : start + COLUMNS]
        lines.append(table_row(f"![{name}]({gallery_picture(name)})" for name, _ in row))
        lines += [] if start else [table_row(["---"] * COLUMNS)]
        lines.append(table_row(f"`{name}`: {look.shows}" for name, look in row))
    return "\n".join(lines)


def gallery_picture(look):
    return f"assets/gallery/{look}.jpg"


def file_cells(path, metadata):
    """Return what the table of files tells of one."""
    classes = metadata.num_classes or "no classifier"
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    return f"`{path.name}`", REGISTRY[metadata.model].title, classes, f"`{metadata.layer}`", metadata.dtype, size


def origin(path, metadata):
    """Return the paragraph on where a file comes from, on what terms, and how to check it."""
    told = " ".join((metadata.origin or "origin not told").split())
    source = f" Converted from `{metadata.source}`, sha256 `{metadata.source_sha256}`." if metadata.source else ""
    return f"- `{path.name}`: {told}.{source} Its own sha256: `{sha256(path)}`."


def table_row(cells):
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
