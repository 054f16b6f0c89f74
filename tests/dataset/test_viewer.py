"""--show: the system's viewer is a script here, that writes down what it is asked to open."""

import os
import time

import pytest

from dataset import viewer


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Return a function that says what was opened, once it was."""
    asked = tmp_path / "asked.txt"
    for name in ("xdg-open", "open"):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nprintf "%s" "$*" > {asked}.part && mv {asked}.part {asked}\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.chdir(tmp_path)

    def what():
        end = time.monotonic() + 20
        while not asked.exists() and time.monotonic() < end:
            time.sleep(0.02)
        return asked.read_text()

    return what


def test_one_file_is_opened(opened, tmp_path):
    viewer.show(["--wild name.png"])
    assert opened() == str(tmp_path / "--wild name.png")


def test_of_several_the_folder_is_opened(opened, tmp_path):
    viewer.show(["dreams/a/1.png", "dreams/b/2.png"])
    assert opened() == str(tmp_path / "dreams")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_without_a_display_there_is_a_note(monkeypatch, tmp_path, capsys, platform):
    monkeypatch.setattr(viewer.sys, "platform", platform)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    viewer.show(["dream.png"])
    viewer.show([])
    assert capsys.readouterr().err == "note: there is no display to show dream.png on\n"
