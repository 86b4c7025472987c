"""Data: MNIST from the repository, verified; own pictures; and what is said when something is missing or damaged."""

import gzip
import hashlib
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edm_lesson.data import DataError, Images, choose_device, load_images, normalise, to_uint8

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
    for offset in [(0.0,), (-0.739,)]:
        assert torch.equal(to_uint8(normalise(pixels, offset), offset), pixels)
    assert (normalise(pixels).min(), normalise(pixels).max()) == (-1, 1)
    assert to_uint8(torch.tensor([[[[-3.0, 3.0]]]])).flatten().tolist() == [0, 255]


def test_padding_and_centring(mnist):
    padded = load_images("mnist", "test", img_resolution=32)
    assert padded.pixels.shape == (10_000, 1, 32, 32)
    assert torch.equal(padded.pixels[:, :, 2:-2, 2:-2], load_images("mnist", "test").pixels)
    assert padded.pixels.sum() == padded.pixels[:, :, 2:-2, 2:-2].sum(), "the border is black"
    centred = load_images("mnist", centre=True)
    assert centred.batch(slice(None)).double().mean().item() == pytest.approx(0, abs=1e-6)
    assert centred.statistics()["std"] == pytest.approx(mnist.statistics()["std"])
    assert centred.statistics()["rms"] == pytest.approx(centred.statistics()["std"], abs=1e-9)


def test_colour_is_centred_channel_by_channel():
    pixels = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    pixels[:, 0] //= 4
    batch = Images(pixels, torch.zeros(50)).centred().batch()
    torch.testing.assert_close(batch.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)


def test_files_are_extracted_once_from_a_folder_that_is_only_read(places):
    archives, extracted = places
    archives.chmod(0o555)
    load_images("mnist")
    assert not list(archives.glob("*ubyte"))
    times = {path: path.stat().st_mtime_ns for path in extracted.glob("*")}
    assert len(times) == 4
    load_images("mnist", "test")
    assert {path: path.stat().st_mtime_ns for path in extracted.glob("*")} == times
    archives.chmod(0o755)


def flip(path, position=5000):
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_archive_is_named_and_nothing_is_loaded(places, damage, name):
    archives, extracted = places
    expected = hashlib.sha256((archives / f"{name}.gz").read_bytes()).hexdigest()
    damage(archives / f"{name}.gz")
    found = hashlib.sha256((archives / f"{name}.gz").read_bytes()).hexdigest()
    with pytest.raises(DataError, match=rf"{name}\.gz is damaged .* digest is {found}, expected {expected}"):
        load_images("mnist")
    assert not (extracted / name).exists()


@pytest.mark.parametrize("damage", [flip, truncate])
def test_a_damaged_extracted_file_is_named_and_not_loaded(places, damage):
    archives, extracted = places
    load_images("mnist")
    target = extracted / "train-images-idx3-ubyte"
    damage(target)
    found = hashlib.sha256(target.read_bytes()).hexdigest()
    expected = hashlib.sha256(gzip.decompress((archives / "train-images-idx3-ubyte.gz").read_bytes())).hexdigest()
    with pytest.raises(
        DataError, match=f"train-images-idx3-ubyte is damaged .* digest is {found}, expected {expected}"
    ):
        load_images("mnist")
    target.unlink()
    assert len(load_images("mnist")) == 60_000


def test_a_cache_that_can_not_be_written_says_how_to_choose_another(places, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EDM_LESSON_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set EDM_LESSON_CACHE"):
        load_images("mnist")


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
    with pytest.raises(DataError, match=f"(?s){name} is not on this machine.*{address}.* into .*{folder}"):
        load_images(name)


def test_archives_put_there_by_hand_are_used(places, monkeypatch, no_network):
    archives, extracted = places
    extracted.mkdir(parents=True)
    for path in archives.iterdir():
        shutil.copy(path, extracted)
    monkeypatch.setenv("EDM_LESSON_DATA", str(archives / "nowhere"))
    assert len(load_images("mnist", "test")) == 10_000


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


def test_bad_folders_are_refused_with_the_file(tmp_path):
    with pytest.raises(DataError, match="There is no picture in"):
        load_images(tmp_path)
    picture(tmp_path / "a.png", (16, 16), (0, 0, 0))
    picture(tmp_path / "b.png", (20, 16), (0, 0, 0))
    with pytest.raises(ValueError, match=r"b\.png is 20×16.*give img_resolution"):
        load_images(tmp_path)
    truncate_to = (tmp_path / "a.png").read_bytes()[:40]
    (tmp_path / "a.png").write_bytes(truncate_to)
    with pytest.raises(DataError, match=r"a\.png can't be read as a picture"):
        load_images(tmp_path, img_resolution=16)


def test_an_npz_file_is_taken_as_it_is_and_bad_ones_are_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=pixels, labels=np.arange(5))
    images = load_images(tmp_path / "mine.npz")
    assert np.array_equal(images.pixels.numpy(), pixels)
    assert images.labels.tolist() == list(range(5))
    for name, arrays, message in [
        ("float", {"images": pixels / 255}, "float64"),
        ("other", {"pictures": pixels}, "images"),
        ("pickle", {"images": np.array([{}], dtype=object)}, "pickle"),
    ]:
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(DataError, match=message):
            load_images(tmp_path / f"{name}.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnits"}, "no data set 'mnits'"),
        ({"name": "mnist", "split": "dev"}, "split is 'dev'"),
        ({"name": "mnist", "img_resolution": 20}, "img_resolution is 20; it must be a whole number, 28 or more"),
        ({"name": "mnist", "img_channels": 3}, "mnist has 1 channel"),
        ({"name": "mnist", "img_channels": 2}, "img_channels is 2; it must be 1 or 3"),
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
