"""Where published weights lie: the entries that the registry's rows are written with. downloads.py fetches them."""

from dataclasses import dataclass
from urllib.parse import urlsplit

BSD = "BSD-3-Clause"  # of torchvision
CC_BY = "CC BY (places2.csail.mit.edu)"
CAFFE_PORT = "MIT; a port without the classifier"
PROGAMERGOV = "https://github.com/ProGamerGov"


@dataclass(frozen=True)
class Source:
    """One place where weights of a network are."""

    address: str  # a URL, or hub:OWNER/NAME/FILE
    terms: str
    megabytes: int = 0  # about; 0 where unknown
    digest: str = ""  # "sha256:..." or "sha1:...", of which the first digits are enough; "" where none is published

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


def torchvision(name, megabytes):
    """A file of torchvision's, whose name holds the first 8 digits of its SHA-256."""
    digest = name.rsplit("-", 1)[1].removesuffix(".pth")
    return Source(f"https://download.pytorch.org/models/{name}", BSD, megabytes, f"sha256:{digest}")


def timm(name, megabytes, terms=BSD):
    """timm's copy of torchvision's weights, on the Hugging Face hub."""
    return Source(f"hub:timm/{name}.tv_in1k/model.safetensors", terms, megabytes)


def published(name):
    """This project's own earlier files, float32 or float16: torchvision's weights."""
    return Source(f"hub:NickMystic/DeepDream-MLX/{name}_mlx.npz", BSD)
