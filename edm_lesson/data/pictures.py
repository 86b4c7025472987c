"""Pictures in a folder: which there are, of which classes, and what is in them."""

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from edm_lesson import LessonError, visible
from edm_lesson.data.images import Images

# What Pillow may take a picture for, whatever its suffix: nothing that starts a program, as EPS would. HEIF comes with
# a plugin; TGA, which nothing marks, is tried last.
FORMATS = ["PNG", "JPEG", "MPO", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "HEIF", "JPEG2000", "PPM", "PCX", "QOI"]
FORMATS += ["SGI", "PSD", "ICO", "TGA"]


def load_folder(folder: Path, img_resolution: int | None, mode: str) -> Images:
    """The pictures in `folder`, in `mode` "L" or "RGB"; scaled to fit `img_resolution`, and cropped to the center.

    Subfolders are the classes; what lies deeper belongs to the one above. What is left out or changed is in the notes.
    """
    files, left_out = _find_pictures(folder)
    told = [f"{count:,} {visible(kind)[:40]}" for kind, count in left_out.most_common(9)] + ["…"] * (len(left_out) > 9)
    notes = [f"left out: {', '.join(told)}"] if told else []
    if not files:
        raise LessonError("; ".join([f"There is no picture in {folder}", *notes]))
    subfolders = [path.relative_to(folder).parts[:-1][:1] for path in files]  # () for a picture that lies in none
    classes = sorted(set(subfolders), key=_by_number)
    if len(classes) > 1 and not classes[0]:
        raise LessonError(
            f"{files[subfolders.index(())]} lies beside subfolders with pictures ({classes[1][0]}, …), which are the "
            "classes: move it into a subfolder, or remove the subfolders."
        )
    pixels, changed = _read_all(files, img_resolution, mode)
    notes += [f"{what}: {count:,}" for what, count in changed.items()]
    names = [name for parts in classes for name in parts]
    folders = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."]
    if empty := [visible(name) for name in folders if names and name not in names]:
        notes.append(f"no picture in {', '.join(empty[:9])}{', …' * (len(empty) > 9)}")
    if splits := {"train", "test", "valid", "val", "validation"} & {name.lower() for name in names}:
        notes.append(f"are {', '.join(sorted(splits))} classes? To train on one of them, give its folder")
    number = {name: label for label, name in enumerate(classes)}
    return Images(pixels, torch.tensor([number[name] for name in subfolders]), tuple(names), tuple(notes))


def _by_number(parts):
    """A key that sorts numbers in names as numbers: 2 before 10."""
    return [[int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)] for name in parts], parts


def _find_pictures(folder):
    """The files of pictures in and below `folder`, sorted, and how many others lie there, counted by their kind."""
    Image.init()
    files, left_out, waiting, seen = [], Counter(), [folder], set()
    while waiting:
        here = waiting.pop()
        if (place := os.path.realpath(here)) in seen:
            left_out["linked to a folder that was read already"] += 1
            continue
        seen.add(place)
        for path in sorted(here.iterdir(), reverse=True):
            suffix = path.suffix.lower()
            if path.name.startswith("."):
                left_out["hidden"] += 1
            elif path.is_dir():
                waiting.append(path)
            elif Image.EXTENSION.get(suffix) in FORMATS:
                files.append(path)
            else:
                left_out[f"{suffix or 'without a suffix'}{' (save as .jpg)' * (suffix in ('.heic', '.heif'))}"] += 1
    return sorted(files), left_out


def _read_all(files, img_resolution, mode):
    """The pictures in `files` as uint8 (N, C, H, W), and in how many what was changed; all bad ones are named."""
    pixels, bad, changed, deep = None, [], Counter(), {}
    hidden = len(files) < 200 or os.environ.get("LOCAL_RANK", "0") != "0"
    bar = tqdm(files, "reading", unit="file", disable=hidden)
    for number, path in enumerate(bar):
        try:
            values = _read(path, img_resolution, mode, changed, deep)
        except Exception as error:  # every format has errors of its own
            why = str(error).replace(f" {str(path)!r}", "")
            bad.append(visible(f"{path} ({why})")[:200])
            continue
        if pixels is None:
            pixels = torch.empty(len(files), *values.shape, dtype=torch.uint8)
        if values.shape != pixels.shape[1:]:
            width, height = values.shape[:-3:-1]
            raise ValueError(f"{path} is {width}×{height}, {files[0]} is another size: give img_resolution.")
        pixels[number] = values
    if bad:
        named = "; ".join(bad[:5] + ["…"] * (len(bad) > 5))
        raise LessonError(f"{len(bad):,} of {len(files):,} pictures can't be read: {named}. Repair or remove them.")
    brightest = max(deep.values(), default=65535)
    bits = max(8, (brightest.bit_length() + 1) // 2 * 2)
    if bits < 16:  # a camera's 10 or 12
        for number in [number for number, path in enumerate(files) if path in deep]:
            pixels[number] = _read(files[number], img_resolution, mode, Counter(), {}, white=2**bits - 1)
        changed[f"{bits} of 16 bits in use, up to {brightest:,}, so {2**bits - 1:,} is white"] = len(deep)
    return pixels, changed


def _read(path, img_resolution, mode, changed, deep, white=65535):
    """The picture in `path`, upright and on black, as uint8 (C, H, W): of 16 bits, the value `white` becomes 255.

    What is changed is counted in `changed`; of 16 bits the brightest value is kept in `deep`.
    """
    if not path.is_file():
        raise ValueError("it is no file, or a link to none")
    with Image.open(path, formats=[kind for kind in FORMATS if kind in Image.OPEN]) as picture:
        if img_resolution:
            picture.draft(None, (2 * img_resolution, 2 * img_resolution))  # no more of a JPEG is decoded than that
        if getattr(picture, "is_animated", False) and picture.format not in ("MPO", "PSD"):
            changed["several pictures in a file, the first taken"] += 1
        sixteen, grey = ";16" in str(picture.tile), picture.mode[0] in "1LIF"
        picture = ImageOps.exif_transpose(picture)
    if mode == "L" and not grey:
        changed["stored in colour, made grey"] += 1
    if picture.mode[0] in "IF":
        values = np.array(picture)
        if picture.mode == "F" or values.min() < 0 or values.max() > 65535:  # which don't say what is white
            found = f"{values.dtype} from {values.min()} to {values.max()}"
            raise ValueError(f"it holds {found}: save it with 8 or 16 bits")
        if "transparency" in picture.info:
            values[values == picture.info["transparency"]] = 0
        deep[path] = int(values.max())
        picture = Image.fromarray(((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8))
    elif sixteen:  # a color, of which Pillow reads the upper 8
        deep[path] = 256 * max(high for _, high in picture.convert("RGB").getextrema()) + 255
        if white < 65535:
            raise LessonError(f"{path} has 16 bits per color, and only lower ones in use: save it with 8.")
    if picture.mode in ("P", "PA", "LA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    picture = picture.convert(mode)
    if img_resolution:
        picture = ImageOps.fit(picture, (img_resolution, img_resolution), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if mode == "L" else pixels.permute(2, 0, 1)
