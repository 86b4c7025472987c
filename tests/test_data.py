"""Data: MNIST from the repository, verified; own pictures; and what is said when something is missing or damaged."""

import hashlib
import io
import os
import re
import shutil
import socket
import tempfile
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import datasets

from edm_lesson import LessonError
from edm_lesson.data import (
    Images,
    cache_folder,
    choose_device,
    data_folder,
    load_images,
    normalize,
    sources,
    to_uint8,
)

ARCHIVES = Path(__file__).resolve().parent.parent / "data" / "MNIST" / "raw"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A copy of the archives and a cache of its own, in folders with spaces and other letters."""
    data, cache = tmp_path / "dåta folder", tmp_path / "my cache"
    shutil.copytree(ARCHIVES, data / "MNIST" / "raw", ignore=shutil.ignore_patterns("*ubyte"))
    monkeypatch.setenv("EDM_LESSON_DATA", str(data))
    monkeypatch.setenv("EDM_LESSON_CACHE", str(cache))
    return data / "MNIST" / "raw", cache / "MNIST" / "raw"


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("the network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_mnist_is_what_it_is_known_to_be(mnist):
    test = load_images("mnist", "test")
    assert (mnist.pixels.shape, mnist.pixels.dtype) == ((60_000, 1, 28, 28), torch.uint8)
    assert (test.pixels.shape, test.labels.dtype) == ((10_000, 1, 28, 28), torch.int64)
    assert mnist.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    statistics = mnist.statistics()
    assert (round(statistics["mean"], 3), round(statistics["std"], 3), round(statistics["rms"], 3)) == (
        -0.739,
        0.616,
        0.962,
    )
    batch = mnist.batch(torch.arange(60_000)).double()
    assert (batch.mean().item(), batch.std().item()) == pytest.approx((statistics["mean"], statistics["std"]), abs=1e-6)


def test_pixels_survive_the_way_to_minus_one_and_one_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(normalize(pixels)), pixels)
    assert (normalize(pixels).min(), normalize(pixels).max()) == (-1, 1)
    assert to_uint8(torch.tensor([[[[-3.0, 3.0]]]])).flatten().tolist() == [0, 255]


def test_padding():
    padded = load_images("mnist", "test", img_resolution=32)
    assert padded.pixels.shape == (10_000, 1, 32, 32)
    assert torch.equal(padded.pixels[:, :, 2:-2, 2:-2], load_images("mnist", "test").pixels)
    assert padded.pixels.sum() == padded.pixels[:, :, 2:-2, 2:-2].sum(), "the border is black"


def test_the_mean_is_measured_channel_by_channel():
    pixels = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    pixels[:, 0] //= 4
    images = Images(pixels, torch.zeros(50))
    batch = images.batch().double()
    assert images.mean().dtype == torch.float32
    torch.testing.assert_close(images.mean().double(), batch.mean(dim=(0, 2, 3))[:, None, None], atol=1e-6, rtol=0)
    for values, found in [(batch, images.statistics()), (batch - images.mean(), images.statistics(center=True))]:
        measured = values.mean(), values.std(correction=0), values.square().mean().sqrt()
        assert found.values() == pytest.approx([value.item() for value in measured], abs=1e-6)


PIXELS = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pixels": PIXELS.float()}, r"pixels is torch\.float32 \(4, 3, 8, 8\)"),
        ({"pixels": PIXELS[0]}, r"pixels is torch\.uint8 \(3, 8, 8\)"),
        ({"pixels": PIXELS[:0], "labels": torch.zeros(0)}, r"pixels is torch\.uint8 \(0, 3, 8, 8\).*each at least 1"),
        ({"pixels": PIXELS.numpy()}, r"pixels is uint8 \(4, 3, 8, 8\); it must be torch\.uint8"),
        ({"labels": torch.zeros(3)}, r"labels is torch\.float32 \(3,\); it must be numbers \(4,\)"),
        ({"labels": torch.zeros(4, 1)}, r"labels is torch\.float32 \(4, 1\)"),
        ({"labels": torch.zeros(4, dtype=torch.bool)}, r"labels is torch\.bool"),
        ({"labels": torch.tensor([0, 1, 2.5, 3])}, "labels contains 2.5"),
        ({"labels": torch.tensor([0, 1, -1, 3])}, "labels contains -1"),
    ],
)
def test_what_is_no_data_set_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Images(**{"pixels": PIXELS, "labels": torch.zeros(4, dtype=torch.long)} | fields)


@pytest.mark.parametrize("labels", [torch.zeros(4), torch.arange(4), torch.arange(4, dtype=torch.uint8)])
def test_labels_may_be_any_whole_numbers(labels):
    assert torch.equal(Images(PIXELS, labels).batch(), torch.full((4, 3, 8, 8), -1.0))


def test_images_of_one_grey_do_not_spread():
    for value in range(256):
        images = Images(torch.full((3, 1, 7, 7), value, dtype=torch.uint8), torch.zeros(3))
        for center in (False, True):
            spread = images.statistics(center)["std"]
            assert isinstance(spread, float), "not complex"
            assert spread == pytest.approx(0, abs=1e-12)


def test_mnist_is_read_in_memory_and_nothing_is_written(places, mnist):
    data, cache = places
    data.chmod(0o555)
    before = sorted(path.name for path in data.iterdir())
    again = load_images("mnist")
    assert torch.equal(again.pixels, mnist.pixels)
    assert torch.equal(again.labels, mnist.labels)
    assert sorted(path.name for path in data.iterdir()) == before
    assert not cache.parent.parent.exists()
    data.chmod(0o755)


def test_archives_that_were_fetched_by_hand_are_read_where_they_were_put(places, monkeypatch, no_network):
    data, cache = places
    shutil.copytree(data, cache)
    shutil.copytree(data, cache.parent.parent / "FashionMNIST" / "raw")
    monkeypatch.setenv("EDM_LESSON_DATA", str(data.parent / "empty"))
    assert len(load_images("mnist", "test")) == 10_000
    digests = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in data.iterdir()}
    with pytest.raises(LessonError, match=r"(?s)fashion_mnist .* could not be downloaded .*FashionMNIST"):
        load_images("fashion_mnist", "test")  # for these are MNIST's
    monkeypatch.setattr(datasets.FashionMNIST, "resources", list(digests.items()))
    assert torch.equal(load_images("fashion_mnist", "test").pixels, load_images("mnist", "test").pixels)


def flip(path, position=5000):
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_archive_is_named_and_nothing_is_loaded(places, damage, name):
    archives, _ = places
    expected = hashlib.sha256((archives / f"{name}.gz").read_bytes()).hexdigest()
    damage(archives / f"{name}.gz")
    found = hashlib.sha256((archives / f"{name}.gz").read_bytes()).hexdigest()
    with pytest.raises(LessonError, match=rf"{name}\.gz is damaged .* digest is {found}, expected {expected}"):
        load_images("mnist", "test" if name.startswith("t10k") else "train")


def test_a_cache_that_can_not_be_written_says_how_to_choose_another(places, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EDM_LESSON_CACHE", str(tmp_path / "file"))
    for name in ("fashion_mnist", "cifar10"):
        with pytest.raises(
            LessonError, match=r"(?s)could not be downloaded .*file.*set EDM_LESSON_CACHE to a folder with space"
        ):
            load_images(name)


@pytest.mark.parametrize(
    ("name", "address", "folder"),
    [
        ("mnist", "https?://.*mnist", "MNIST/raw"),
        ("fashion_mnist", "http://fashion-mnist", "FashionMNIST/raw"),
        ("cifar10", "cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "cache"),
    ],
)
def test_without_a_network_it_says_where_to_fetch_and_where_to_put(
    name, address, folder, tmp_path, monkeypatch, no_network
):
    monkeypatch.setenv("EDM_LESSON_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv("EDM_LESSON_CACHE", str(tmp_path / "cache"))
    with pytest.raises(LessonError, match=f"(?s){name} is not on this machine.*{address}.* into .*{folder}"):
        load_images(name)


def picture(path, size, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_a_folder_of_pictures_is_scaled_cropped_and_labelled_by_subfolder(tmp_path):
    picture(tmp_path / "cats" / "a.png", (60, 40), (255, 0, 0))
    picture(tmp_path / "dogs" / "b.jpg", (30, 90), (0, 0, 255))
    (tmp_path / "notes.txt").write_text("no picture")
    images = load_images(tmp_path, img_resolution=16)
    assert images.pixels.shape == (2, 3, 16, 16)
    assert images.labels.tolist() == [0, 1]
    assert images.pixels[0, :, 8, 8].tolist() == [255, 0, 0]
    assert load_images(tmp_path, img_resolution=16, img_channels=1).pixels.shape == (2, 1, 16, 16)


@pytest.fixture
def one_picture(tmp_path):
    """A function that saves a picture alone in a folder, and gives what is loaded from there: (C, H, W) as lists."""

    def load(picture, img_channels=1, suffix="png", **settings):
        picture.save(tmp_path / f"a.{suffix}", **settings)
        pixels = load_images(tmp_path, img_channels=img_channels).pixels[0].tolist()
        (tmp_path / f"a.{suffix}").unlink()
        return pixels

    return load


SIXTEEN_BITS = [[0, 128, 129, 257], [1000, 32768, 65406, 65535]]
EIGHT_BITS = [[0, 0, 1, 1], [4, 128, 254, 255]]  # 65535 / 257 is 255


@pytest.mark.parametrize(("kind", "suffix"), [("<u2", "png"), ("<u2", "tif"), (">u2", "tif"), ("<i4", "tif")])
def test_sixteen_bits_of_grey_are_scaled_to_eight(kind, suffix, one_picture):
    deep = Image.fromarray(np.array(SIXTEEN_BITS, dtype=kind))
    assert one_picture(deep, suffix=suffix) == [EIGHT_BITS]
    assert one_picture(deep, 3, suffix) == [EIGHT_BITS] * 3


def test_a_transparent_grey_of_sixteen_bits_is_black(tmp_path):
    path, chunk = tmp_path / "a.png", b"tRNS" + (32768).to_bytes(2, "big")
    Image.fromarray(np.array(SIXTEEN_BITS, dtype=np.uint16)).save(path)
    header, rest = path.read_bytes()[:33], path.read_bytes()[33:]  # not every Pillow writes the chunk
    path.write_bytes(header + b"\0\0\0\2" + chunk + zlib.crc32(chunk).to_bytes(4, "big") + rest)
    assert load_images(tmp_path, img_channels=1).pixels.tolist() == [[[[0, 0, 1, 1], [4, 0, 254, 255]]]]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (np.float32([[0, 0.5]]), "float32 from 0.0 to 0.5"),
        (np.int32([[0, 65536]]), "int32 from 0 to 65536"),
        (np.int32([[-1, 5]]), "int32 from -1 to 5"),
    ],
)
def test_pictures_without_a_known_white_are_refused(numbers, message, tmp_path):
    Image.fromarray(numbers).save(tmp_path / "a.tif")
    with pytest.raises(LessonError, match=rf"can't be read: .*a\.tif \(it holds {message}.*8 or 16 bits"):
        load_images(tmp_path)


def test_transparent_pictures_are_put_on_black(one_picture):
    colour = Image.fromarray(np.uint8([[[200, 100, 50, 0], [200, 100, 50, 255], [200, 100, 50, 128]]]))
    for suffix in ("png", "tif"):
        assert one_picture(colour, 3, suffix) == [[[0, 200, 100]], [[0, 100, 50]], [[0, 50, 25]]]
    grey = Image.fromarray(np.uint8([[[200, 0], [200, 255], [200, 128]]]), "LA")
    assert one_picture(grey) == [[[0, 200, 100]]]
    assert one_picture(grey, 3) == [[[0, 200, 100]]] * 3


def test_transparent_colours_of_a_palette_or_a_key_are_put_on_black(one_picture):
    indexed = Image.fromarray(np.uint8([[0, 1, 2]]), "P")
    indexed.putpalette([255, 255, 255, 0, 0, 255, 10, 20, 30])
    assert one_picture(indexed, 3) == [[[255, 0, 10]], [[255, 0, 20]], [[255, 255, 30]]]
    for suffix in ("png", "gif"):
        assert one_picture(indexed, 3, suffix, transparency=0) == [[[0, 0, 10]], [[0, 0, 20]], [[0, 255, 30]]]
    alphas = bytes([255, 0, 255])
    assert one_picture(indexed, 3, transparency=alphas) == [[[255, 0, 10]], [[255, 0, 20]], [[255, 0, 30]]]
    colour = Image.fromarray(np.uint8([[[1, 2, 3], [4, 5, 6]]]))
    assert one_picture(colour, 3, transparency=(4, 5, 6)) == [[[1, 0]], [[2, 0]], [[3, 0]]]
    assert one_picture(Image.fromarray(np.uint8([[7, 8]])), transparency=7) == [[[0, 8]]]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, [[10, 20, 30], [40, 50, 60]]),
        (2, [[30, 20, 10], [60, 50, 40]]),
        (3, [[60, 50, 40], [30, 20, 10]]),
        (4, [[40, 50, 60], [10, 20, 30]]),
        (5, [[10, 40], [20, 50], [30, 60]]),
        (6, [[40, 10], [50, 20], [60, 30]]),  # a quarter turn clockwise, as of a telephone held upright
        (7, [[60, 30], [50, 20], [40, 10]]),
        (8, [[30, 60], [20, 50], [10, 40]]),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pictures_are_turned_as_their_exif_orientation_says(kind, orientation, upright, one_picture):
    exif = Image.Exif()
    exif[0x0112] = orientation
    factor = 257 if kind is np.uint16 else 1
    stored = Image.fromarray(np.array([[40, 80, 120], [160, 200, 240]], dtype=kind) * kind(factor))
    assert one_picture(stored, exif=exif) == [[[4 * shade for shade in row] for row in upright]]


def test_a_picture_beside_classes_is_refused_and_empty_subfolders_are_ignored(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name, (8, 8), (0, 0, 0))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("no picture")
    assert load_images(tmp_path).labels.tolist() == [0, 0]
    picture(tmp_path / "cats" / "c.png", (8, 8), (0, 0, 0))
    with pytest.raises(
        LessonError, match=r"a\.png lies beside.*cats.*move it into a subfolder, or remove the subfolders"
    ):
        load_images(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / name).unlink()
    picture(tmp_path / "dogs" / "puppies" / "d.png", (8, 8), (0, 0, 0))
    assert load_images(tmp_path).labels.tolist() == [0, 1]


def test_bad_folders_are_refused_with_the_file(tmp_path):
    with pytest.raises(LessonError, match="There is no picture in"):
        load_images(tmp_path)
    picture(tmp_path / "a.png", (16, 16), (0, 0, 0))
    picture(tmp_path / "b.png", (20, 16), (0, 0, 0))
    with pytest.raises(ValueError, match=r"b\.png is 20×16.*give img_resolution"):
        load_images(tmp_path)
    truncate_to = (tmp_path / "a.png").read_bytes()[:40]
    (tmp_path / "a.png").write_bytes(truncate_to)
    with pytest.raises(LessonError, match=r"1 of 2 pictures can't be read: .*a\.png \(cannot identify"):
        load_images(tmp_path, img_resolution=16)


def test_an_npz_file_is_taken_as_it_is_and_bad_ones_are_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=pixels, labels=np.arange(5))
    images = load_images(tmp_path / "mine.npz")
    assert np.array_equal(images.pixels.numpy(), pixels)
    assert images.labels.tolist() == list(range(5))
    assert np.array_equal(load_images(tmp_path / "mine.npz", img_resolution=8).pixels.numpy(), pixels)
    np.savez(tmp_path / "no labels.npz", images=pixels)
    assert load_images(tmp_path / "no labels.npz").labels.tolist() == [0] * 5
    for name, arrays, message in [
        ("float", {"images": pixels / 255}, "float64"),
        ("other", {"pictures": pixels}, "images"),
        ("pickle", {"images": np.array([{}], dtype=object)}, "pickle"),
        ("empty", {"images": pixels[..., :0]}, r"uint8 \(5, 3, 8, 0\)"),
        ("huge", {"images": pixels, "labels": np.full(5, 2**63, dtype=np.uint64)}, "labels"),
    ]:
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(LessonError, match=message):
            load_images(tmp_path / f"{name}.npz")


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 8), (20, 20)])
def test_an_npz_file_of_another_size_is_refused_and_not_padded(height, width, tmp_path):
    np.savez(tmp_path / "mine.npz", images=np.zeros((2, 1, height, width), np.uint8))
    with pytest.raises(LessonError, match=rf"mine\.npz are {width}×{height}, img_resolution is 16"):
        load_images(tmp_path / "mine.npz", img_resolution=16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnits"}, "no data set 'mnits'"),
        ({"name": "mnist", "split": "dev"}, "split is 'dev'"),
        ({"name": "mnist", "img_resolution": 20}, "img_resolution is 20; it must be a whole number, 28 or more"),
        ({"name": ".", "img_resolution": 0}, "img_resolution is 0; it must be a whole number from 1 to 16384"),
        ({"name": ".", "img_resolution": 10**30}, "img_resolution is 1000000000000000000000000000000; it must be"),
        ({"name": ".", "img_channels": 2}, r"img_channels is 2; pictures of a folder have 1 or 3"),
        ({"name": "mnist", "img_channels": 3}, r"mnist has 1 channel\(s\), and img_channels is 3"),
        ({"name": "mnist", "img_channels": 2}, r"mnist has 1 channel\(s\), and img_channels is 2"),
        ({"name": "mnist", "device": "toaster"}, "device is 'toaster'"),
    ],
)
def test_unknown_names_and_sizes_are_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_images(**arguments)


def test_the_device_is_the_one_named_or_the_best():
    assert choose_device("cpu").type == "cpu"
    assert choose_device().type == (
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    )


def test_shipped_files_are_looked_for_in_the_repository_in_the_package_or_where_one_says(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "edm_lesson" / "data" / "sources.py"))
    assert data_folder() == tmp_path / "edm_lesson" / "shipped"
    (tmp_path / "data" / "MNIST").mkdir(parents=True)
    assert data_folder() == tmp_path / "data"
    monkeypatch.setenv("EDM_LESSON_DATA", str(tmp_path / "elsewhere"))
    assert data_folder() == tmp_path / "elsewhere"


def noise(path, size=(32, 24), mode="RGB", **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 80).convert(mode).save(path, **settings)


def test_formats_that_people_have_are_read_and_what_is_left_out_is_counted(tmp_path):
    Image.init()
    readable = [suffix for suffix in SUFFIXES.split() if Image.registered_extensions().get(suffix) in Image.SAVE]
    assert len(readable) > 20
    for suffix in readable:
        noise(tmp_path / f"a{suffix.upper()}", mode="L" if suffix == ".pgm" else "RGB")
    assert str(load_images(tmp_path, img_resolution=8)) == f"{len(readable)} images of (3, 8, 8)"
    for name in ("b.heic", "c.HEIC", "LICENSE", "d.txt", ".DS_Store", "._a.png", ".ipynb_checkpoints/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture")
    noise(tmp_path / "e.eps")
    images = load_images(tmp_path, img_resolution=8)
    assert len(images) == len(readable)
    told = "left out: 3 hidden, 2 .heic (save as .jpg), 1 .eps, 1 .txt, 1 without a suffix"
    assert sorted(str(images).split("; ")[1].split(", ")) == sorted(told.split(", "))
    assert told.startswith(images.notes[0][:38])
    for path in tmp_path.glob("a.*"):
        path.unlink()
    with pytest.raises(LessonError, match=r"There is no picture in .*2 \.heic \(save as \.jpg\)"):
        load_images(tmp_path)


SUFFIXES = """.png .apng .jpg .jpeg .jpe .jfif .bmp .dib .gif .webp .tif .tiff .avif .jp2 .j2k .jpx
.ppm .pgm .pnm .tga .pcx .qoi .sgi .rgb .ico"""


def test_links_to_classes_and_pictures_count_and_loops_end(tmp_path):
    for name in ("store/birds", "set/cats", "set/dogs"):
        noise(tmp_path / name / "a.png")
    (tmp_path / "set" / "birds").symlink_to(tmp_path / "store" / "birds")
    (tmp_path / "set" / "dogs" / "b.png").symlink_to(tmp_path / "set" / "cats" / "a.png")
    images = load_images(tmp_path / "set")
    assert (images.class_names, images.labels.tolist()) == (("birds", "cats", "dogs"), [0, 1, 2, 2])
    assert not images.notes
    (tmp_path / "set" / "dogs" / "all").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "hounds").symlink_to("dogs")
    (tmp_path / "set" / "mice").mkdir()
    images = load_images(tmp_path / "set")
    assert len(images) == 4
    assert images.notes == ("left out: 2 linked to a folder that was read already", "no picture in hounds, mice")


def test_a_folder_with_the_name_of_a_picture_is_a_folder(tmp_path):
    noise(tmp_path / "cats.png" / "a.png")
    assert load_images(tmp_path).class_names == ("cats.png",)


def test_names_that_are_numbers_sort_as_numbers_and_parts_of_a_set_are_questioned(tmp_path):
    for name in ("10", "9", "b2", "b10", "a", "010"):
        noise(tmp_path / "numbers" / name / "a.png")
    images = load_images(tmp_path / "numbers")
    assert images.class_names == ("9", "010", "10", "a", "b2", "b10")
    assert [images.class_names[label] for label in images.labels] == sorted(images.class_names), (
        "files keep their order"
    )
    for name in ("train/cats", "Test/cats", "rest"):
        noise(tmp_path / "parts" / name / "a.png")
    assert load_images(tmp_path / "parts").notes == (
        "are test, train classes? To train on one of them, give its folder",
    )
    assert load_images(tmp_path / "parts" / "train").notes == ()


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_the_lower_bits_of_sixteen_are_scaled_by_those_in_use_in_the_whole_folder(bits, tmp_path):
    white = 2**bits - 1
    dark, bright = np.array([[0, white // 5, 1]]), np.array([[white, white // 2, white // 3]])
    for name, values in (("a", dark), ("b", bright)):
        Image.fromarray(values.astype(np.uint16)).save(tmp_path / f"{name}.png")
    noise(tmp_path / "c.png", (3, 1), "L")
    images = load_images(tmp_path, img_channels=1)
    expected = np.concatenate([dark, bright]) / white * 255
    assert np.abs(images.pixels[:2, 0, 0].numpy() - expected).max() <= 0.5
    assert torch.equal(images.pixels[2, 0], torch.from_numpy(np.array(Image.open(tmp_path / "c.png"))))
    assert images.notes == (f"{bits} of 16 bits in use, up to {white:,}, so {white:,} is white: 2",)
    assert images.statistics()["std"] > 0.3


def deep_colours(path, values):
    """A PNG with 16 bits a colour, which Pillow reads, but doesn't write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x10\2\0\0\0"
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(rows), b"IEND"]
    packed = [(len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def test_sixteen_bits_a_colour_are_read_where_the_upper_ones_are_in_use(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3))
    deep_colours(tmp_path / "a.png", values)
    deep_colours(tmp_path / "night.png", values // 2000)
    assert np.array_equal(load_images(tmp_path).pixels[0].permute(1, 2, 0), values // 256)
    deep_colours(tmp_path / "a.png", values // 16)
    with pytest.raises(LessonError, match=r"a\.png has 16 bits per color, and only lower ones in use: save it with 8"):
        load_images(tmp_path)


def test_grey_made_of_colours_and_further_frames_are_counted(tmp_path):
    frames = [Image.effect_noise((8, 8), 10 * k) for k in (1, 2, 3)]
    for suffix in ("tif", "gif", "png", "webp"):
        frames[0].convert("RGB").save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
        frames[0].save(tmp_path / f"one.{suffix}")
    images = load_images(tmp_path)
    assert images.notes == ("several pictures in a file, the first taken: 4",)
    first = torch.from_numpy(np.array(frames[0])).expand(3, -1, -1)
    assert [torch.equal(each, first) for each in images.pixels[:3]] == [True] * 3, "of .gif, .png and .tif"
    frames[0].save(tmp_path / "a.webp", lossless=True)
    assert "several pictures in a file, the first taken: 3" in load_images(tmp_path, img_channels=1).notes
    noise(tmp_path / "photos" / "a.jpg")
    assert load_images(tmp_path / "photos", img_channels=1).notes == ("stored in colour, made grey: 1",)


def test_all_bad_pictures_are_named_at_once_and_none_starts_a_program_or_waits(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch '{tmp_path}/called'\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    folder = tmp_path / "pictures"
    for number in range(3):
        noise(folder / f"{number}.png")
    noise(folder / "a.png", format="EPS")
    os.mkfifo(folder / "b.png")
    (folder / "c.png").symlink_to("/dev/zero")
    (folder / "d.png").symlink_to(tmp_path / "nowhere")
    (folder / "e\n.png").write_bytes(b"")
    for number in range(4, 9):
        (folder / f"f{number}.jpg").write_bytes(b"")
    with pytest.raises(LessonError) as told:
        load_images(folder, img_resolution=8)
    assert re.search(r"10 of 13 pictures can't be read: .*a\.png .* .*b\.png .* .*c\.png .* .*d\.png ", str(told.value))
    assert r"e\n.png" in str(told.value)
    assert len(str(told.value)) < 1200
    assert not (tmp_path / "called").exists()


def test_no_more_of_a_photograph_is_decoded_than_is_needed(tmp_path, monkeypatch):
    noise(tmp_path / "a.jpg", (1600, 1200), quality=90)
    whole = ImageOps.fit(Image.open(tmp_path / "a.jpg"), (32, 32), Image.Resampling.LANCZOS)
    sizes, transposed = [], ImageOps.exif_transpose
    monkeypatch.setattr(ImageOps, "exif_transpose", lambda picture: sizes.append(picture.size) or transposed(picture))
    pixels = load_images(tmp_path, img_resolution=32).pixels[0]
    assert sizes == [(200, 150)]
    assert np.abs(np.array(whole).transpose(2, 0, 1) - pixels.numpy().astype(int)).max() <= 3


def test_reading_many_pictures_shows_a_bar_and_few_none(tmp_path, capsys):
    for number in range(200):
        noise(tmp_path / ("some" if number < 12 else "others") / f"{number}.png")
    load_images(tmp_path / "some")
    assert capsys.readouterr().err == ""
    load_images(tmp_path)
    assert "reading" in capsys.readouterr().err


def test_statistics_copy_few_images_at_a_time():
    class Largest(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and not out._is_view():
                self.bytes = max(self.bytes, out.nbytes)
            return out

    images = Images(torch.randint(0, 256, (1000, 3, 32, 32), dtype=torch.uint8), torch.zeros(1000))
    with Largest() as largest:
        found = images.statistics(), images.statistics(center=True), images.mean()
    assert largest.bytes <= 256 * 32 * 32
    assert found[0]["std"] == pytest.approx(images.batch().std(correction=0).item(), abs=1e-5)


def test_labels_that_leave_gaps_are_numbered_and_keep_their_names(tmp_path):
    pixels = np.zeros((4, 1, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.array([7, 3, 11, 3]))
    images = load_images(tmp_path / "a.npz")
    assert images.labels.tolist() == [1, 0, 2, 0]
    assert images.class_names == ("3", "7", "11")
    assert "classes: 0 3 (2), 1 7 (1), 2 11 (1)" in str(images)
    np.savez(tmp_path / "a.npz", images=pixels)
    assert load_images(tmp_path / "a.npz").class_names == ()


def test_an_npz_file_that_unpacks_to_gigabytes_or_is_no_file_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (3000, 1, 1024, 1024)}
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.npy", b"")
        archive.writestr("images.npy", header.getvalue() + bytes(2**20))
        archive.infolist()[1].file_size = 3 * 2**30  # what an honest one would say
    with pytest.raises(LessonError, match=r"bomb\.npz can't be read .*it unpacks to 3 GB"):
        load_images(tmp_path / "bomb.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(LessonError, match=r"pipe\.npz can't be read .*it is no file"):
        load_images(tmp_path / "pipe.npz")


def test_sets_in_the_cache_are_verified_and_extracted_ones_are_not_trusted(places, monkeypatch, no_network):
    data, cache = places
    cache = cache.parent.parent / "FashionMNIST" / "raw"
    shutil.copytree(data, cache)
    digests = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in data.iterdir()}
    monkeypatch.setattr(datasets.FashionMNIST, "resources", list(digests.items()))
    for name in digests:
        (cache / name.removesuffix(".gz")).write_bytes(b"extracted, and altered since")
    images = load_images("fashion_mnist", "test")
    assert torch.equal(images.pixels, load_images("mnist", "test").pixels)
    assert images.class_names[9] == "Ankle boot"
    flip(cache / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(LessonError, match=r"fashion_mnist .* could not be downloaded"):
        load_images("fashion_mnist", "test")


def test_a_server_that_falls_silent_is_given_up(tmp_path, monkeypatch):
    patience = []

    def silent(*_, **__):
        patience.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", silent)
    monkeypatch.setenv("EDM_LESSON_CACHE", str(tmp_path))
    for name in ("fashion_mnist", "cifar10"):
        with pytest.raises(LessonError, match=r"could not be downloaded \(timed out\)"):
            load_images(name)
    assert set(patience) == {60.0}
    assert socket.getdefaulttimeout() is None


def test_a_path_is_never_a_named_set(tmp_path, monkeypatch):
    noise(tmp_path / "mnist" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert [len(load_images(name)) for name in (Path("mnist"), "mnist/", "./mnist", "mnist")] == [1, 1, 1, 60_000]


def test_who_has_no_home_has_a_cache_all_the_same(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "EDM_LESSON_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["nobody"])
    assert cache_folder() == Path(tempfile.gettempdir(), "edm_lesson")
    with pytest.raises(ValueError, match="There is no data set '~nobody/pictures'"):
        load_images("~nobody/pictures")


def test_images_say_in_one_line_what_they_are():
    labels = torch.tensor([1, 0, 1, 1])
    assert str(Images(PIXELS, torch.zeros(4))) == "4 images of (3, 8, 8)"
    assert str(Images(PIXELS, labels.float())) == "4 images of (3, 8, 8); classes: 0 (1), 1 (3)"
    named = Images(PIXELS, labels, ("a\nb", "1"), ("left out: 3 .txt",))
    assert str(named) == r"4 images of (3, 8, 8); classes: 0 a\nb (1), 1 (3); left out: 3 .txt"
    assert str(named.padded(9).to("cpu")) == str(named).replace("8, 8", "9, 9")
    many = Images(PIXELS[:1].expand(300, -1, -1, -1), torch.arange(300), tuple(map(str, range(300))))
    assert str(many).endswith("18 (1), 19 (1), … (300 classes)")
