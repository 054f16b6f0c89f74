"""Brings published weights (sources.py) here. convert.py --download uses it; nothing else goes online.

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
from pathlib import Path
from urllib.parse import urlsplit

from dataset import cli
from dataset.cli import UserError

TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 4  # at one source
WAIT = 1.0  # seconds before the second attempt; doubled before each further one
BLOCK = 1 << 18


def fetch(source, folder, quiet=False):
    """Download a source's file to `folder`, unless it is there already, check its digest, and return its path.

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
    """Request what is missing of a file, and append it to `part`. Raises Broken where the server stops early."""
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
    """Return (bytes that an earlier download of this URL has brought, what the server knows the file's state by)."""
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
