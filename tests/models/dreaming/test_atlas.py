"""The page of a survey: what is in it, and going on with an unfinished one."""

import re
import shlex

from models.dreaming import atlas
from models.dreaming.atlas import Page, is_finished, read_page

import numpy as np
import pytest
from conftest import smooth_image

import dream
from dataset.cli import UserError

QUICK = ["--octaves", "1", "--steps", "1", "--quiet"]
BRANCH = "inception3a.branch3.0"  # of 16 channels


@pytest.fixture
def page(photo, monkeypatch):
    """Return the page of a survey of photo.png, as a path that does not exist yet."""
    monkeypatch.chdir(photo.parent)
    return photo.parent / "photo_survey.html"


def test_a_survey_is_a_page(page, capsys):
    dream.main(["photo.png", "--survey", BRANCH, *QUICK])
    lines = capsys.readouterr().out.splitlines()
    state, cells = read_page(page)
    assert state["finished"] and is_finished(page) and lines[-1] == "photo_survey.html"
    assert [name for name, _, _ in cells] == [f"{BRANCH}:{c}" for c in range(16)]
    assert [command for _, command, _ in cells] == lines[:-1]
    text = page.read_text()
    assert "https:" not in text and "http:" not in text and text.count("data:image/webp;base64,") == 16
    assert "default-src 'none'" in text and "{{" not in text


def test_the_command_of_a_cell_gives_its_dream(page):
    """As far as WebP keeps it: the photo is smaller than the dreams of a survey."""
    import base64
    import io

    from PIL import Image

    from dataset.images import read_image

    dream.main(["photo.png", "--survey", "classes:volcano", *QUICK])
    ((name, command, image),) = read_page(page)[1]
    assert name.startswith("volcano")
    script = shlex.split(command)[1:]
    assert script[0] == "dream.py"
    dream.main([*script[1:], "-o", "again.png", "--quiet"])
    shown = Image.open(io.BytesIO(base64.b64decode(image["source"].partition(",")[2])))
    difference = np.abs(np.asarray(shown.convert("RGB"), float) - read_image("again.png"))
    assert difference.mean() < 6 < np.abs(read_image("photo.png") - read_image("again.png")).max()


def test_an_interrupted_survey_goes_on(page, monkeypatch, capsys):
    words = ["photo.png", "--survey", BRANCH, *QUICK]
    dreamed, add = [], Page.add

    def interrupt(self, name, *rest):
        dreamed.append(name)
        add(self, name, *rest)
        if len(dreamed) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Page, "add", interrupt)
        with pytest.raises(KeyboardInterrupt):
            dream.main(words)
        assert not is_finished(page) and len(read_page(page)[1]) == 5
        with pytest.raises(UserError, match="of another survey"):
            dream.main([*words, "--resume", "--seed", "1"])
        dream.main([*words, "--resume"])
        assert len(dreamed) == 16  # none twice
        resumed = page.read_bytes()
        dream.main([*words, "--resume", "--seed", "1"])  # a finished page is left
        assert len(dreamed) == 16 and page.read_bytes() == resumed
    dream.main(words)
    assert page.read_bytes() == resumed


def test_a_page_is_written_now_and_then(tmp_path, monkeypatch):
    """So that little is lost to a kill; and the rarer, the longer a writing takes."""
    monkeypatch.setattr(atlas, "PAUSE", 0.0)
    monkeypatch.setattr(atlas, "SHARE", 0)
    path = tmp_path / "page.html"
    page = Page(path, "title", "key")
    for number in range(3):
        page.add(str(number), "python dream.py", smooth_image(8, 12))
        assert len(read_page(path)[1]) == number + 1 and not is_finished(path)


def test_names_are_text_and_nothing_else(tmp_path):
    names = ["<script>alert(1)</script>", 'a "b" & c\'', "</figure>", "{{cells}}", "line\nbreak", "\udcff no UTF-8"]
    page = Page(tmp_path / "page.html", "</title><script>", "key")
    for name in names:
        page.add(name, f"python dream.py {shlex.quote(name)}", smooth_image(8, 12))
    (path,) = page.write()
    text = path.read_bytes().decode(errors="surrogateescape")
    assert [name for name, _, _ in read_page(path)[1]] == names
    assert len(re.findall("<script", text)) == 1 and text.count("<figure") == len(names)


@pytest.mark.parametrize(
    "text", ["", "<html>", '<meta name="survey" content="[]">', '<meta name="survey" content="{">']
)
def test_other_pages_are_refused(page, text):
    page.write_text(text)
    with pytest.raises(UserError, match="no page of --survey"):
        dream.main(["photo.png", "--survey", BRANCH, *QUICK, "--resume"])


def test_a_damaged_cell_is_dreamed_again(page):
    words = ["photo.png", "--survey", BRANCH, *QUICK]
    dream.main(words)
    whole = page.read_text()
    broken = whole.replace("data:image/webp", "javascript:", 1).replace(
        "&quot;finished&quot;: true", "&quot;finished&quot;: false"
    )
    page.write_text(broken)
    assert len(read_page(page)[1]) == 15
    dream.main([*words, "--resume"])
    assert sorted(cell[0] for cell in read_page(page)[1]) == sorted(f"{BRANCH}:{c}" for c in range(16))


def test_wrong_names(page):
    with pytest.raises(UserError, match="cannot write .gif"):
        dream.main(["photo.png", "--survey", *QUICK, "-o", "sheet.gif"])
    with pytest.raises(UserError, match="no class has that in its name"):
        dream.main(["photo.png", "--survey", "classes:sofa of gold", *QUICK])
    with pytest.raises(UserError, match="has no use for --layers"):
        dream.main(["photo.png", "--survey", "classes:volcano", "--layers", "conv1", *QUICK])
