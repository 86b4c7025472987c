"""Data: MNIST from the repository, verified; own pictures; and what is said when something is missing or damaged."""

import hashlib
import shutil
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from edm_lesson import LessonError
from edm_lesson.data import Images, choose_device, data_folder, load_images, normalize, sources, to_uint8

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
    with pytest.raises(LessonError, match=rf"a\.tif can't be read as a picture \(it holds {message}.*8 or 16 bits"):
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
    stored = Image.fromarray(np.array([[10, 20, 30], [40, 50, 60]], dtype=kind) * kind(factor))
    assert one_picture(stored, exif=exif) == [upright]


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
    with pytest.raises(LessonError, match=r"a\.png can't be read as a picture"):
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
    with pytest.raises(LessonError, match=rf"mine\.npz are {width}×{height}, and img_resolution is 16"):
        load_images(tmp_path / "mine.npz", img_resolution=16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnits"}, "no data set 'mnits'"),
        ({"name": "mnist", "split": "dev"}, "split is 'dev'"),
        ({"name": "mnist", "img_resolution": 20}, "img_resolution is 20; it must be a whole number, 28 or more"),
        ({"name": ".", "img_resolution": 0}, "img_resolution is 0; it must be a whole number, 1 or more"),
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


def test_images_say_in_one_line_what_they_are():
    labels = torch.tensor([1, 0, 1, 1])
    assert str(Images(PIXELS, torch.zeros(4))) == "4 images of (3, 8, 8)"
    assert str(Images(PIXELS, labels.float())) == "4 images of (3, 8, 8); classes: 0 (1), 1 (3)"
    named = Images(PIXELS, labels, ("a\nb", "1"), ("left out: 3 .txt",))
    assert str(named) == r"4 images of (3, 8, 8); classes: 0 'a\nb' (1), 1 (3); left out: 3 .txt"
    assert str(named.padded(9).to("cpu")) == str(named).replace("8, 8", "9, 9")
    many = Images(PIXELS[:1].expand(300, -1, -1, -1), torch.arange(300), tuple(map(str, range(300))))
    assert str(many).endswith("18 (1), 19 (1), … (300 classes)")
