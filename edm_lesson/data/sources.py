"""Where images come from: MNIST, which travels with the course, other named sets, folders of pictures, `.npz` files."""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import torch

from edm_lesson import LessonError
from edm_lesson.checks import check_choice, check_count
from edm_lesson.data.images import Images, choose_device

# SHA-256 of the canonical MNIST archives (data/README.md).
MNIST_ARCHIVES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


def data_folder() -> Path:
    """The folder of `MNIST`, `pretrained` and `results`: `EDM_LESSON_DATA`, or where they came with the package."""
    package = Path(__file__).resolve().parents[1]
    in_repository = (package.parent / "data" / "MNIST").is_dir()
    default = package.parent / "data" if in_repository else package / "shipped"
    return Path(os.environ.get("EDM_LESSON_DATA") or default).expanduser()


def cache_folder() -> Path:
    """The folder for downloads: `EDM_LESSON_CACHE`, or `~/.cache/edm_lesson`."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "edm_lesson")
    return Path(os.environ.get("EDM_LESSON_CACHE") or default).expanduser()


def load_images(
    name: str | Path,
    split: str = "train",
    *,
    img_resolution: int | None = None,
    img_channels: int | None = None,
    device: torch.device | str = "cpu",
) -> Images:
    """A data set as one uint8 tensor.

    Parameters
    ----------
    name : "mnist" (shipped; no network), "fashion_mnist" or "cifar10" (downloaded), a folder of pictures, or an `.npz`
        file with `images`, uint8 (N, C, H, W), and, if there are classes, `labels`, whole numbers (N,), 0 or more
        (default: all 0). Subfolders with pictures are the classes; there must be no pictures beside them then.
        Pictures are turned as their EXIF orientation says, put on black where they are transparent, and scaled to
        8 bits where they have 16.
    split : "train" or "test"; folders and `.npz` files have no splits and are taken whole.
    img_resolution : the named sets are padded with black to this size; pictures of a folder are scaled and cropped
        to it; the images of an `.npz` file must have it. Default: as they are.
    img_channels : 1 or 3; pictures of a folder are converted. Default: as they are (folders: 3).
    """
    check_choice("split", split, ("train", "test"))
    if img_resolution is not None:
        check_count("img_resolution", img_resolution)
    shipped = data_folder() / "MNIST" / "raw"
    if name == "mnist" and all((shipped / file).is_file() for file in MNIST_ARCHIVES):
        images = _load_mnist(shipped, split)
    elif name in ("mnist", "fashion_mnist", "cifar10"):
        images = _download(name, split)
    elif Path(name).expanduser().is_dir():
        images = _load_folder(Path(name).expanduser(), img_resolution, "L" if img_channels == 1 else "RGB")
    elif str(name).endswith(".npz"):
        images = _load_npz(Path(name).expanduser(), img_resolution)
    else:
        raise ValueError(f"There is no data set '{name}': give mnist, fashion_mnist, cifar10, a folder or .npz file.")
    if img_channels not in (None, images.pixels.shape[1]):
        raise ValueError(f"{name} has {images.pixels.shape[1]} channel(s), and img_channels is {img_channels}.")
    if img_resolution is not None:
        images = images.padded(img_resolution)
    return images.to(choose_device(device))


def _load_mnist(folder, split):
    """MNIST out of the archives in `folder`, which are read in memory: nothing is extracted."""
    parts = []
    for archive, header in {"images-idx3": 16, "labels-idx1": 8}.items():
        path = folder / f"{'train' if split == 'train' else 't10k'}-{archive}-ubyte.gz"
        packed, expected = path.read_bytes(), MNIST_ARCHIVES[path.name]
        found = hashlib.sha256(packed).hexdigest()
        if found != expected:
            raise LessonError(
                f"{path} is damaged or was changed: its digest is {found}, expected {expected}. Restore the file (in a "
                "checkout: git checkout -- data), or delete it and fetch it again."
            )
        parts.append(torch.frombuffer(bytearray(gzip.decompress(packed)), dtype=torch.uint8, offset=header))
    return Images(parts[0].reshape(-1, 1, 28, 28), parts[1].long())


def _download(name, split):
    """A data set of torchvision's, downloaded into the cache where it is not there yet; torchvision checks the MD5s."""
    from torchvision import datasets

    kind = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}[name]
    address, place = datasets.CIFAR10.url, cache_folder()
    if name != "cifar10":
        address, place = kind.mirrors[0], place / kind.__name__ / "raw"
    try:
        dataset = kind(cache_folder(), train=split == "train", download=True)
    except Exception as error:  # no network, a proxy, a damaged download, a full disk, no such folder
        raise LessonError(
            f"{name} is not on this machine and could not be downloaded ({str(error).strip()}). Fetch it by hand from "
            f"{address} and put the archive(s), as they are, into {place}; or set EDM_LESSON_CACHE to a folder with "
            "space that you can write to."
        ) from error
    pixels = torch.as_tensor(dataset.data)  # (N, H, W) or (N, H, W, 3)
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.as_tensor(dataset.targets))


def _read_picture(path, mode):
    """The picture in `path`, upright and on black, in the `mode` "L" or "RGB"; 16 bits are scaled to 8."""
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        values = np.array(picture)
        if picture.mode == "F" or values.min() < 0 or values.max() > 65535:  # which don't say what is white
            raise ValueError(
                f"it holds {values.dtype} from {values.min()} to {values.max()}: save it with 8 or 16 bits"
            )
        if "transparency" in picture.info:
            values[values == picture.info["transparency"]] = 0
        picture = Image.fromarray((values / 257).round().astype(np.uint8))
    elif picture.mode in ("P", "PA", "LA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    return picture.convert(mode)


def _load_folder(folder, img_resolution, mode):
    """Pictures as (N, C, H, W), scaled so that the shorter side fits and cropped to the center."""
    from PIL import Image, ImageOps
    from torchvision.transforms.functional import pil_to_tensor

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise LessonError(f"There is no picture in {folder}; looked for {', '.join(sorted(IMAGE_SUFFIXES))}.")
    subfolders = [path.relative_to(folder).parts[:-1][:1] for path in files]  # () for a picture that lies in none
    classes = sorted(set(subfolders))
    if len(classes) > 1 and not classes[0]:
        raise LessonError(
            f"{files[subfolders.index(())]} lies beside subfolders with pictures ({classes[1][0]}, …), which are the "
            "classes: move it into a subfolder, or remove the subfolders."
        )
    pixels = []
    for path in files:
        try:
            picture = _read_picture(path, mode)
            if img_resolution:
                picture = ImageOps.fit(picture, (img_resolution, img_resolution), Image.Resampling.LANCZOS)
        except Exception as error:  # every format has errors of its own
            raise LessonError(f"{path} can't be read as a picture ({error}). Repair or remove it.") from error
        pixels.append(pil_to_tensor(picture))
        if pixels[-1].shape != pixels[0].shape:
            width, height = picture.size
            raise ValueError(f"{path} is {width}×{height}, {files[0]} is another size: give img_resolution.")
    return Images(torch.stack(pixels), torch.tensor([classes.index(subfolder) for subfolder in subfolders]))


def _load_npz(path, img_resolution):
    try:
        with np.load(path, allow_pickle=False) as archive:
            pixels = torch.from_numpy(archive["images"])
            labels = archive.get("labels", np.zeros(len(pixels), int)).astype(np.int64, casting="same_kind")
        images = Images(pixels, torch.from_numpy(labels))
    except Exception as error:  # NumPy's, those of the archive in it, and what is no data set
        raise LessonError(
            f"{path} can't be read as an .npz file with `images` and maybe `labels` ({error})."
        ) from error
    height, width = pixels.shape[2:]
    if img_resolution and (width, height) != (img_resolution, img_resolution):
        raise LessonError(
            f"images in {path} are {width}×{height}, and img_resolution is {img_resolution}: give the size they have."
        )
    return images
