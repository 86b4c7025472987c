"""Where images come from: MNIST, which travels with the course, other named sets, folders of pictures, `.npz` files."""

import gzip
import hashlib
import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import torch

from edm_lesson import LessonError
from edm_lesson.checks import check_choice, check_count
from edm_lesson.data.files import lock
from edm_lesson.data.images import Images, choose_device
from edm_lesson.data.pictures import load_folder

# SHA-256 of the canonical MNIST archives (data/README.md).
MNIST_ARCHIVES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
NAMED_SETS = ("mnist", "fashion_mnist", "cifar10")


def data_folder() -> Path:
    """The folder of `MNIST`, `pretrained` and `results`: `EDM_LESSON_DATA`, or where they came with the package."""
    package = Path(__file__).resolve().parents[1]
    in_repository = (package.parent / "data" / "MNIST").is_dir()
    default = package.parent / "data" if in_repository else package / "shipped"
    return Path(os.environ.get("EDM_LESSON_DATA") or default).expanduser()


def cache_folder() -> Path:
    """The folder for downloads: `EDM_LESSON_CACHE`, or `~/.cache/edm_lesson`; a temporary one for who has no home."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "edm_lesson")
    try:
        return Path(os.environ.get("EDM_LESSON_CACHE") or default).expanduser()
    except RuntimeError:
        return Path(tempfile.gettempdir(), "edm_lesson")


def load_images(
    name: str | Path, split: str = "train", *, img_resolution: int | None = None, img_channels: int | None = None,
    device: torch.device | str = "cpu",
) -> Images:  # fmt: skip
    """A data set as one uint8 tensor.

    Parameters
    ----------
    name : "mnist" (shipped; no network), "fashion_mnist" or "cifar10" (downloaded), a folder of pictures, or an `.npz`
        file with `images`, uint8 (N, C, H, W), and, if there are classes, `labels`, whole numbers (N,), 0 or more,
        which are numbered anew from 0 on. A `Path`, "./mnist" and "mnist/" are a folder, whatever its name.
        Subfolders with pictures are the classes, in the order of their names, numbers in them as numbers; there must
        be no pictures beside them then. Links are followed. Pictures are turned as their EXIF orientation says, put on
        black where they are transparent, and scaled to 8 bits where they have 16; where none uses the uppermost bits,
        by those in use. `print` says what was found, left out and changed.
    split : "train" or "test"; folders and `.npz` files have no splits and are taken whole.
    img_resolution : the named sets are padded with black to this size; pictures of a folder are scaled and cropped
        to it; the images of an `.npz` file must have it. Default: as they are.
    img_channels : 1 or 3; pictures of a folder are converted. Default: as they are (folders: 3).
    """
    check_choice("split", split, ("train", "test"))
    if img_resolution is not None:
        check_count("img_resolution", img_resolution, maximum=2**14)
    shipped = data_folder() / "MNIST" / "raw"
    if name == "mnist" and all((shipped / file).is_file() for file in MNIST_ARCHIVES):
        images = _read_archives(shipped, split, MNIST_ARCHIVES)
    elif name in NAMED_SETS:
        images = _download(name, split)
    elif (path := Path(os.path.expanduser(name))).is_dir():
        if img_channels not in (None, 1, 3):
            raise ValueError(f"img_channels is {img_channels}; pictures of a folder have 1 or 3.")
        images = load_folder(path, img_resolution, "L" if img_channels == 1 else "RGB")
    elif path.suffix == ".npz":
        images = _load_npz(path, img_resolution)
    else:
        raise ValueError(f"There is no data set '{name}': give mnist, fashion_mnist, cifar10, a folder or .npz file.")
    if img_channels not in (None, images.pixels.shape[1]):
        raise ValueError(f"{name} has {images.pixels.shape[1]} channel(s), and img_channels is {img_channels}.")
    if name in NAMED_SETS and img_resolution is not None:
        images = images.padded(img_resolution)
    return images.to(choose_device(device))


def _read_archives(folder, split, digests, class_names="0123456789"):
    """The images of `split` in MNIST's format out of the archives in `folder`, in memory: nothing is extracted."""
    parts = []
    for archive, header in {"images-idx3": 16, "labels-idx1": 8}.items():
        path = folder / f"{'train' if split == 'train' else 't10k'}-{archive}-ubyte.gz"
        packed = path.read_bytes()
        found = hashlib.sha256(packed).hexdigest()
        if found != (expected := digests.get(path.name, found)):
            raise LessonError(
                f"{path} is damaged or was changed: its digest is {found}, expected {expected}. Restore the file (in a "
                "checkout: git checkout -- data), or delete it and fetch it again."
            )
        parts.append(torch.frombuffer(bytearray(gzip.decompress(packed)), dtype=torch.uint8, offset=header))
    return Images(parts[0].reshape(-1, 1, 28, 28), parts[1].long(), tuple(class_names))


def _download(name, split):
    """A data set of torchvision's, downloaded into the cache where it isn't there; its MD5s are verified every time."""
    from torchvision import datasets

    kind = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}[name]
    address, place = datasets.CIFAR10.url, cache_folder()
    if name != "cifar10":
        address, place = kind.mirrors[0], place / kind.__name__ / "raw"
    patience = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(60.0)  # for a server that says nothing more
        with lock(place):  # one process fetches it, others find it
            if name == "cifar10":
                dataset = kind(place, train=split == "train", download=True)
                pixels = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
                return Images(pixels, torch.tensor(dataset.targets), tuple(dataset.classes))
            for archive, md5 in kind.resources:
                datasets.utils.download_url(address + archive, place, archive, md5)
    except Exception as error:  # no network, a proxy, a damaged download, a full disk, no such folder
        raise LessonError(
            f"{name} is not on this machine and could not be downloaded ({str(error).strip()}). Fetch it by hand from "
            f"{address} and put the archive(s), as they are, into {place}; or set EDM_LESSON_CACHE to a folder with "
            "space that you can write to."
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
    known = [MNIST_ARCHIVES] if name == "mnist" else [{}, kind.classes]
    return _read_archives(place, split, *known)


def _load_npz(path, img_resolution):
    """The images in an .npz file; its labels are numbered from 0 on, and are the names of the classes."""
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        with np.load(path, "r", allow_pickle=False) as archive:  # "r": what is no archive is not read whole
            unpacked = sum(entry.file_size for entry in archive.zip.infolist())
            if unpacked > max(2**30, 200 * path.stat().st_size):  # pictures don't pack as well
                raise ValueError(f"it unpacks to {unpacked / 1e9:,.0f} GB")
            pixels = torch.from_numpy(archive["images"])
            labels = archive.get("labels", np.zeros(len(pixels), int)).astype(np.int64, casting="same_kind")
        images = Images(pixels, torch.from_numpy(labels))
    except Exception as error:  # NumPy's, those of the archive in it, and what is no data set
        raise LessonError(f"{path} can't be read as an .npz file of `images`, maybe `labels` ({error}).") from error
    height, width = pixels.shape[2:]
    if img_resolution and (width, height) != (img_resolution, img_resolution):
        raise LessonError(f"images in {path} are {width}×{height}, img_resolution is {img_resolution}: give theirs.")
    names, numbered = images.labels.unique(return_inverse=True)
    return Images(pixels, numbered, tuple(map(str, names.tolist())) if names.any() else ())
