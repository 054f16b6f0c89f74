"""A survey as a page: one HTML file that holds all its dreams, to look through in a browser, and to go on with.

The page is self-contained: its content security policy lets it load nothing. What an interrupted survey needs to go on
stands in the page, too: a <meta name="survey"> says of what it is and whether it is finished.
"""

import base64
import hashlib
import io
import json
import re
import time
from html import escape
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from dataset.cli import UserError
from dataset.files import atomic_write, check_place
from dataset.images import check_writable, to_uint8

SUFFIXES = (".html", ".htm")
TEMPLATE = Path(__file__).with_suffix(".html")
QUALITY = 80  # of the WebP images
PAUSE = 1.0  # seconds at least between two writings of an unfinished page
SHARE = 20  # and so many times as long as a writing takes
NOTE = "Small dreams; the command of each dreams on the whole picture."
UNFINISHED = " Unfinished: the same command with --resume goes on."
CELL = """<figure data-name="{name}" data-command="{command}">
<button class="open" aria-label="Enlarge {name}">{image}</button>
<figcaption><span>{name}</span><button class="copy" aria-label="Copy the command of {name}">copy</button></figcaption>
</figure>
"""
IMAGE = '<img src="{source}" width="{width}" height="{height}" loading="lazy" decoding="async" alt="Dream of {name}">'


class Page:
    """A page that grows by a dream at a time. `names`: of those that it holds; `finished`: whether that is all."""

    def __init__(self, path, title, key, resume=False):
        """Begin a page, or go on with the unfinished one at `path`.

        key: text that tells this survey from others. Raises UserError where the page to go on with is of another.
        """
        self.path, self.title, self.key = Path(path), title, key
        self.finished, self.names, self.cells = False, set(), []
        self.written, self.pause = time.monotonic(), PAUSE
        if resume and self.path.exists():
            state, cells = read_page(self.path)
            if state["key"] != key:
                raise UserError(f"{path}: this unfinished page is of another survey: remove it, or take another -o")
            for name, command, image in cells:
                self.append(name, command, image)

    def add(self, name, command, dream):
        """Add a dream, H x W x 3, with its command; the page is written now and then."""
        buffer = io.BytesIO()
        Image.fromarray(to_uint8(dream)).save(buffer, "WEBP", quality=QUALITY)
        source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
        image = {"source": source, "width": dream.shape[1], "height": dream.shape[0]}
        self.append(name, command, image)
        if time.monotonic() - self.written > self.pause:
            self.write()

    def append(self, name, command, image):
        self.names.add(name)
        name, command = escape(name), escape(command)
        self.cells.append(CELL.format(name=name, command=command, image=IMAGE.format(name=name, **image)))

    def write(self):
        """Write the page, and return [its path]."""
        start = time.monotonic()
        template = TEMPLATE.read_text()
        script = re.search("<script>(.*)</script>", template, re.DOTALL)[1]
        note = f"{NOTE}{'' if self.finished else UNFINISHED}"
        values = {
            "script-hash": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            "state": escape(json.dumps({"key": self.key, "finished": self.finished})),
            "title": escape(self.title),
            "note": note,
            "cells": "".join(self.cells),
        }
        page = re.sub("{{(.*?)}}", lambda match: values[match[1]], template)
        with atomic_write(self.path) as temporary:
            Path(temporary).write_bytes(page.encode(errors="surrogateescape"))  # of file names that are no UTF-8
        self.written = time.monotonic()
        self.pause = max(PAUSE, SHARE * (self.written - start))
        return [self.path]


def check_page(path):
    """Raise UserError now if no page, and no image, can be written under that name or in that place."""
    (check_place if path.suffix.lower() in SUFFIXES else check_writable)(path)


def is_finished(path):
    """Return whether --resume has nothing to do at `path`: an image, or a finished page. UserError for other pages."""
    return path.exists() and (path.suffix.lower() not in SUFFIXES or read_page(path)[0]["finished"])


def read_page(path):
    """Return ({"key", "finished"}, [(name, command, image)]) of a page. Raises UserError for what is none."""
    reader = PageReader()
    reader.feed(Path(path).read_bytes().decode(errors="surrogateescape"))
    if not isinstance(reader.state, dict) or not {"key", "finished"} <= reader.state.keys():
        raise UserError(f"{path}: there is no page of --survey to go on with: take another name with -o")
    return reader.state, reader.cells


class PageReader(HTMLParser):
    """Finds the state and the cells of a page; a damaged cell is left out, and dreamed again."""

    def __init__(self):
        super().__init__()
        self.state, self.cells, self.figure = None, [], {}

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "meta" and values.get("name") == "survey":
            try:
                self.state = json.loads(values.get("content") or "")
            except (ValueError, RecursionError):
                self.state = None
        if tag == "figure":
            self.figure = values
        if tag == "img" and {"data-name", "data-command"} <= self.figure.keys():
            source = values.get("src") or ""
            sides = [values.get(side) or "" for side in ("width", "height")]
            if re.fullmatch("data:image/webp;base64,[A-Za-z0-9+/]+=*", source) and all(map(str.isdigit, sides)):
                image = {"source": source, "width": sides[0], "height": sides[1]}
                self.cells.append((self.figure["data-name"], self.figure["data-command"], image))
            self.figure = {}
