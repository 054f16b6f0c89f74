"""Sends weights to the Hugging Face hub, with a model card written from their metadata, for convert.py --publish."""

import re
from pathlib import Path

from dataset.cli import UsageError, UserError
from dataset.files import sha256

from .. import weights_file
from ..registry import REGISTRY

CARD = """\
---
library_name: mlx
license: other
license_name: see-the-table
tags:
- deepdream
- mlx
---

# {title}

Weights for DeepDream-MLX: DeepDream as it was in 2015, on Apple's MLX. One `.npz` a network, read without pickle:

    python dream.py picture.jpg --weights {first}

| file | network | classes | numbers | size | origin and terms | sha256 |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

Each file carries its input statistics, its classes and its origin: `python convert.py --info {first}` prints them.
"""


def publish(repository, paths, send=False):
    """Upload weights files and a card to OWNER/NAME; without `send`, print what would go there. Raises UserError."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"--publish wants OWNER/NAME, not {repository!r}")
    paths = [Path(path) for path in paths]
    if len({path.name for path in paths}) < len(paths):
        raise UsageError("two of the files have the same name")
    text = card(repository, paths)
    print(f"{repository}:")
    for path in paths:
        print(f"  {path.name}  {path.stat().st_size / 1e6:.1f} MB")
    print(f"  README.md:\n\n{text}")
    if not send:
        print("Nothing was sent; --yes sends it.")
        return
    import huggingface_hub

    files = {"README.md": text.encode()} | {path.name: str(path) for path in paths}
    operations = [huggingface_hub.CommitOperationAdd(name, content) for name, content in files.items()]
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        commit = api.create_commit(repository, operations, commit_message=f"Weights: {', '.join(list(files)[1:])}")
    except Exception as error:  # of the hub, of requests or of httpx, according to its version
        reason = " ".join(str(error.__cause__ or error).split())[:200] or type(error).__name__
        raise UserError(f"nothing was published: {reason} (is `hf auth login` done?)") from None
    print(commit.commit_url)


def card(repository, paths):
    """Write the README.md of a repository with these weights files."""
    rows = []
    for path in paths:
        metadata = weights_file.read(path)[1]
        cells = [
            f"`{path.name}`",
            REGISTRY[metadata.model].title,
            metadata.num_classes or "no classifier",
            metadata.dtype,
            f"{path.stat().st_size / 1e6:.1f} MB",
            metadata.origin or "not told",
            f"`{sha256(path)}`",
        ]
        rows.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    title = repository.split("/")[1]
    return CARD.format(title=title, first=paths[0].name, rows="\n".join(rows))
