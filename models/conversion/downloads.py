"""Where the published weights are, and how they come here. convert.py --download uses it; nothing else goes online.

No address is asked for unless the user says so. Plain URLs are fetched with the standard library, which honours
http_proxy, https_proxy and no_proxy; the Hugging Face hub through huggingface_hub, which honours HF_ENDPOINT too.
"""

import hashlib
import http.client
import json
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dataset import cli
from dataset.cli import UserError

TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 4  # at one source
WAIT = 1.0  # seconds before the second attempt; doubled before each further one
BLOCK = 1 << 18


@dataclass(frozen=True)
class Source:
    """One place where weights of a network are."""

    address: str  # a URL, or hub:OWNER/NAME/FILE
    digest: str  # "sha256:..." or "sha1:...", of which the first digits are enough; "" where none is published
    megabytes: int  # about; 0 where unknown
    terms: str

    @property
    def filename(self):
        """Its name in toConvert/."""
        name = self.address.rsplit("/", 1)[1]
        return f"{self.address.split('/')[1]}.safetensors" if name == "model.safetensors" else name

    @property
    def host(self):
        return "hub " + self.address[4:].rsplit("/", 1)[0] if self.is_hub else urlsplit(self.address).hostname

    @property
    def is_hub(self):
        return self.address.startswith("hub:")


BSD = "BSD-3-Clause"  # of torchvision
CC_BY = "CC BY (places2.csail.mit.edu)"
MIT = "MIT; a port without the classifier"


def torchvision(name, megabytes):
    """torchvision's files have the first 8 digits of their SHA-256 in their names."""
    digest = name.rsplit("-", 1)[1].removesuffix(".pth")
    return Source(f"https://download.pytorch.org/models/{name}", f"sha256:{digest}", megabytes, BSD)


def timm(name, megabytes, terms=BSD):
    return Source(f"hub:timm/{name}.tv_in1k/model.safetensors", "", megabytes, terms)


def published(name, megabytes):
    """This project's own earlier files, float32 or float16: torchvision's weights."""
    return Source(f"hub:NickMystic/DeepDream-MLX/{name}_mlx.npz", "", megabytes, BSD)


GITHUB = "https://github.com/ProGamerGov"

# The sources of each network, the best one first. Those that follow are asked when it fails.
SOURCES = {
    "googlenet": (torchvision("googlenet-1378be20.pth", 52), published("googlenet", 0)),
    "vgg16": (torchvision("vgg16-397923af.pth", 553), timm("vgg16", 553), published("vgg16", 0)),
    "vgg19": (torchvision("vgg19-dcbb9e9d.pth", 575), timm("vgg19", 575), published("vgg19", 0)),
    "resnet50": (torchvision("resnet50-0676ba61.pth", 103), timm("resnet50", 103), published("resnet50", 0)),
    "alexnet": (torchvision("alexnet-owt-7be5be79.pth", 244), torchvision("alexnet-owt-4df8aa71.pth", 244)),
    "inception_v3": (
        torchvision("inception_v3_google-0cc3c7bd.pth", 109),
        torchvision("inception_v3_google-1a9a5a14.pth", 109),
        timm("inception_v3", 0, "Apache-2.0"),
    ),
    "googlenet_bvlc": (
        Source(
            "http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
            "sha1:405fc5acd08a3bb12de8ee5e23a96bec22f08204",
            54,
            "unrestricted use (BVLC)",
        ),
        Source(f"{GITHUB}/dream-creator/raw/master/models/pt_bvlc.pth", "", 0, MIT),
        Source(f"{GITHUB}/pytorch-old-caffemodels/raw/master/bvlc_googlenet.pth", "", 0, MIT),
    ),
    "googlenet_places365": (
        Source("http://places2.csail.mit.edu/models_places365/googlenet_places365.caffemodel", "", 0, CC_BY),
        Source("https://pytorch-tutorial-assets.s3.amazonaws.com/captum/inceptionv1_places365.pth", "", 0, CC_BY),
        Source(
            f"{GITHUB}/pytorch-places/raw/master/googlenet_places365.pth", "", 0, f"{CC_BY}, without the classifier"
        ),
    ),
}


def fetch(source, folder, quiet=False):
    """The path of a source's file in `folder`, downloaded unless it is there already; its digest is checked.

    Raises UserError with the reason in a few words.
    """
    path = Path(folder) / source.filename
    if path.exists():
        check(path, source.digest, quiet)
        return path
    cli.log(f"{source.filename} from {source.host}", quiet)
    if source.is_hub:
        fetch_hub(source, path, quiet)
    else:
        fetch_url(source.address, path, quiet)
    try:
        check(path, source.digest, quiet)
    except UserError:
        path.unlink()
        raise
    return path


def check(path, digest, quiet=False):
    """Compare a file with the digest that its publisher gives, and say so. Raises UserError where they differ."""
    kind, _, wanted = digest.partition(":")
    found = hexdigest(path, kind or "sha256")
    if not digest:
        cli.log(f"{path.name}: its publisher gives no digest to check it by; its sha256 is {found}", quiet)
    elif found.startswith(wanted):
        cli.log(f"{path.name}: its {kind} {wanted} is right", quiet)
    else:
        raise UserError(f"{path.name} is not the published file: its {kind} is {found[: len(wanted)]}, not {wanted}")


def hexdigest(path, kind):
    digest = hashlib.new(kind)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class Broken(Exception):
    """A download that broke off, and may be resumed."""


def fetch_url(url, path, quiet=False):
    """Download a URL to a path that appears whole or not at all.

    What has come is kept beside it as NAME.part. It is resumed, in this call after a broken connection or in the
    next one, if the server says that the file is still the same one (If-Range, with its ETag or date).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    stamp = path.with_name(path.name + ".part.json")
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT * 2 ** (attempt - 1))
        try:
            receive(url, part, stamp, quiet)
            os.replace(part, path)
            stamp.unlink(missing_ok=True)
            return
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 416, 429):
                break
        except urllib.error.URLError as error:
            reason = str(error.reason)
            if isinstance(error.reason, (socket.gaierror, ConnectionRefusedError)):
                break  # offline, or no such server: that does not pass in a few seconds
        except (Broken, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(error) or type(error).__name__
    kept = "; what has come is kept, the next call resumes" if part.exists() and part.stat().st_size else ""
    raise UserError(f"{reason}{kept}")


def receive(url, part, stamp, quiet):
    """One request for what is missing of a file; appends it to `part`. Raises Broken where the server stops early."""
    have, validator = progress_of(url, part, stamp)
    headers = {"User-Agent": "DeepDream-MLX", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.build_opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing behind what we have: it may be more than the file
            part.unlink(missing_ok=True)
        raise
    with response:
        resumed = response.status == 206 and (response.headers["Content-Range"] or "").startswith(f"bytes {have}-")
        if response.status == 206 and not resumed:
            part.unlink(missing_ok=True)
            raise Broken("the server sent another part than it was asked for")
        have = have if resumed else 0
        length = response.headers["Content-Length"]
        total = have + int(length) if (length or "").isdigit() else None
        if total and total - have > shutil.disk_usage(part.parent).free:
            raise UserError(f"it has {total / 1e6:.0f} MB, more than there is room for on this disk")
        tag = response.headers["ETag"] or ""
        validator = tag if tag.startswith('"') else response.headers["Last-Modified"]  # a weak tag proves nothing
        stamp.write_text(json.dumps({"url": url, "validator": validator}))
        bar = cli.progress(total, quiet, initial=have, unit="B", unit_scale=True, desc=part.stem)
        with open(part, "ab" if resumed else "wb") as file, bar:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
        size = part.stat().st_size
    if total is not None and size != total:
        raise Broken(f"the connection broke after {size} of {total} bytes")


def progress_of(url, part, stamp):
    """(bytes that an earlier download of this URL has brought, what the server knows the file's state by)."""
    try:
        known = json.loads(stamp.read_text())
        if known["url"] == url and known["validator"]:
            return part.stat().st_size, known["validator"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return 0, None


def fetch_hub(source, path, quiet=False):
    """Download a file of a model on the Hugging Face hub; huggingface_hub resumes and checks by itself."""
    import huggingface_hub
    from huggingface_hub import constants, utils

    host = urlsplit(constants.ENDPOINT).hostname
    utils.logging.set_verbosity_error()
    if quiet:
        utils.disable_progress_bars()
    owner, name, file = source.address.removeprefix("hub:").split("/", 2)
    folder = path.parent / f".{path.name}.hub"  # huggingface_hub keeps notes beside the file, and resumes from them
    try:
        if not urllib.request.getproxies():
            socket.getaddrinfo(host, None)  # without which huggingface_hub would try for half a minute
        os.replace(huggingface_hub.hf_hub_download(f"{owner}/{name}", file, local_dir=folder), path)
    except Exception as error:  # of the hub, of requests or of httpx, according to its version
        if not list(folder.rglob("*.incomplete")):
            shutil.rmtree(folder, ignore_errors=True)
        reason = str(error.__cause__ or error) or type(error).__name__
        raise UserError(" ".join(reason.split())[:200]) from None
    shutil.rmtree(folder)
