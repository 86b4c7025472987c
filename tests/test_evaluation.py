"""Measuring quality: the Fréchet distance in closed form, the classifier, and a judge that tells good from bad."""

import runpy
from copy import copy
from pathlib import Path

import pytest
import torch

from edm_lesson import LessonError, evaluation
from edm_lesson.checkpoints import load_denoiser
from edm_lesson.data import Images, data_folder, load_images
from edm_lesson.evaluation import (
    DigitClassifier,
    Judge,
    distance_ratio,
    evaluate,
    frechet_distance,
    load_classifier,
    nearest_distances,
)
from edm_lesson.evaluation import judge as judges
from edm_lesson.evaluation.classifier import CLASSIFIER
from edm_lesson.evaluation.table import summary
from edm_lesson.samplers import sample_images


def gaussian(count, scales, seed=0):
    """`count` rows with mean exactly 0 and covariance exactly diag(`scales`^2)."""
    rows = torch.randn(count, len(scales), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rows = rows - rows.mean(dim=0)
    covariance = rows.T @ rows / (count - 1)
    return rows @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T * torch.tensor(scales)


def test_equal_sets_have_no_distance():
    a = gaussian(50, [1.0, 2.0, 0.5])
    assert frechet_distance(a, a[torch.randperm(50)]) == pytest.approx(0, abs=1e-9)


def test_a_shift_adds_its_square():
    a, d = gaussian(50, [1.0, 2.0, 0.5]), torch.tensor([0.3, -1.0, 2.0])
    assert frechet_distance(a, a + d) == pytest.approx(d.square().sum().item(), rel=1e-6)


def test_diagonal_gaussians_have_a_closed_form():
    a, b = gaussian(300, [1.0, 2.0, 0.5]), gaussian(80, [1.5, 0.1, 0.0], seed=1) + 1
    expected = 3 + 0.5**2 + 1.9**2 + 0.5**2  # |shift|^2 and the squared differences of the standard deviations
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_a_single_feature_will_do():
    a, b = gaussian(50, [2.0]), gaussian(80, [0.5], seed=1) + 3
    assert frechet_distance(a, b) == pytest.approx(3**2 + 1.5**2, rel=1e-6)


def test_it_does_not_depend_on_the_coordinates():
    a, b = gaussian(100, [1.0, 2.0, 0.5]), gaussian(100, [0.3, 1.0, 1.0], seed=1) + 0.2
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b), rel=1e-6)


def test_fewer_rows_than_features_are_fine():
    a, b = torch.randn(5, 20), torch.randn(7, 20)
    assert 0 < frechet_distance(a, b) < 1e3


@pytest.mark.parametrize(("a", "b"), [((5, 3), (5, 4)), ((1, 3), (5, 3)), ((5, 3), (1, 3)), ((5, 1, 3, 3),) * 2])
def test_features_that_cannot_be_compared_have_no_distance(a, b):
    with pytest.raises(RuntimeError):
        frechet_distance(torch.randn(a), torch.randn(b))


def test_the_ratio_of_real_data_is_about_1_and_grows_with_a_shift():
    generator = torch.Generator().manual_seed(0)
    train, test, more = (torch.randn(n, 4, generator=generator) for n in (20_000, 10_000, 2_000))
    assert distance_ratio(more, train, test) == pytest.approx(1, abs=0.6)
    assert distance_ratio(more + 0.2, train, test) > 5


def test_nearest_distances_are_exact():
    pixels = torch.randint(0, 256, (30, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    queries = pixels[[7, 3]].clone()
    queries[0, 0, 0, 0] ^= 128
    index, distance = nearest_distances(queries, pixels, size=1)
    assert index.tolist() == [7, 3]
    assert distance.tolist() == pytest.approx([128 / 127.5, 0], abs=2e-2)


def test_the_shipped_classifier_is_small_and_reads_the_test_digits():
    path = data_folder() / "pretrained" / CLASSIFIER
    assert path.stat().st_size <= 2_000_000
    test = load_images("mnist", "test")
    guesses = evaluation.in_batches(load_classifier(), test.pixels).argmax(dim=1)
    assert (guesses == test.labels).float().mean() >= 0.993
    padded = evaluation.in_batches(load_classifier(), test.padded(32).pixels[:100]).argmax(dim=1)
    assert torch.equal(padded, guesses[:100]), "a border changes nothing"


def test_a_classifier_is_trained_by_a_script(tmp_path, capsys):
    script = Path(__file__).resolve().parent.parent / "data" / "train_classifier.py"
    path = tmp_path / "c.safetensors"
    runpy.run_path(str(script))["main"](path, epochs=3, images=2000, device="cpu")
    assert "of the test digits" in capsys.readouterr().out
    test = load_images("mnist", "test")
    guesses = evaluation.in_batches(load_classifier(path), test.pixels[:1000]).argmax(dim=1)
    assert (guesses == test.labels[:1000]).float().mean() > 0.8
    with pytest.raises(LessonError, match=r"not at .*data/train_classifier.py"):
        load_classifier(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (2, 1, 27, 27), (2, 1, 28, 32), (1, 28, 28)])
def test_what_is_no_digit_is_refused(shape):
    with pytest.raises(ValueError, match="only digits"):
        DigitClassifier().eval()(torch.zeros(shape))


@pytest.fixture(scope="module")
def judge():
    """A judge of sets of 500 that knows a sixth of MNIST, which takes a few seconds."""

    def fewer(name, split="train", device="cpu"):
        images = load_images(name, split, device=device)
        return Images(images.pixels[:10_000], images.labels[:10_000])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "load_images", fewer)
        return Judge(count=500)


def test_real_digits_score_about_1_and_spoiled_ones_do_not(judge, mnist):
    order = torch.randperm(10_000, generator=torch.Generator().manual_seed(5))
    sets = [judge(mnist.pixels[part]) for part in order[:3000].split(500)]
    assert sum(real["distance_ratio"] for real in sets) / len(sets) == pytest.approx(1, abs=0.3)
    real = sets[0]
    assert real["recognised"] > 0.96
    assert sum(real["class_shares"]) == pytest.approx(1, abs=1e-3)
    assert real["copies"] == 1, "these are training digits"
    assert judge.real["recognised"] > 0.96
    assert judge.real["copies"] < 0.04

    test = load_images("mnist", "test").pixels[:500]
    noise = torch.randint(-90, 90, test.shape, generator=torch.Generator().manual_seed(0))
    noisy = judge((test + noise).clamp(0, 255).byte())
    assert noisy["distance_ratio"] > 5
    assert noisy["nearest"] > judge.real["nearest"]
    labels = load_images("mnist", "test").labels
    only_ones = load_images("mnist", "test").pixels[labels == 1][:500]
    assert judge(only_ones)["distance_ratio"] > 20
    assert judge(only_ones)["class_shares"][1] > 0.98
    with pytest.raises(ValueError, match="3 images were given; this judge measures sets of 500"):
        judge(test[:3])


class WithoutFloat64(torch.Tensor):
    """A tensor on a device that has no float64, as Apple's GPUs."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs)
        if function is torch.Tensor.cpu:
            return result.as_subclass(torch.Tensor)
        if isinstance(result, cls) and result.dtype == torch.float64:
            raise TypeError("This device has no float64.")
        return result


def test_digits_are_measured_on_a_device_without_float64(judge, mnist):
    pixels = mnist.pixels[:500]
    ours, features = judge(pixels), torch.randn(50, 3).as_subclass(WithoutFloat64)
    with pytest.raises(TypeError, match="float64"):
        features.double()
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)

    there = copy(judge)
    there.classifier = copy(judge.classifier)
    for name in ("train_pixels", "train_features", "test_features"):
        setattr(there, name, getattr(judge, name).as_subclass(WithoutFloat64))
    assert there(pixels.as_subclass(WithoutFloat64), mnist.labels[:500].as_subclass(WithoutFloat64)) == {
        **ours,
        "as_asked": pytest.approx(1, abs=0.02),
    }


def test_samples_are_measured_seed_by_seed_and_repeatably(judge, make_denoiser):
    rows = [evaluate(make_denoiser(), judge, seed, num_steps=1, batch_size=250) for seed in range(2)]
    assert rows[0]["distance_ratio"] != rows[1]["distance_ratio"]
    assert all(row["distance_ratio"] > 20 for row in rows), "an untrained model is far from real digits"
    again = evaluate(make_denoiser(), judge, num_steps=1, batch_size=500)
    assert again["distance_ratio"] == pytest.approx(rows[0]["distance_ratio"], rel=1e-2)


class DrawsItsClass(torch.nn.Module):
    """A denoiser with classes whose answer is a test digit of the class that it is asked for, 0 for 9 excepted."""

    img_channels, img_resolution, label_dim = 1, 28, 10

    def __init__(self):
        super().__init__()
        images = load_images("mnist", "test")
        firsts = [int((images.labels == label).nonzero()[1]) for label in range(10)]
        self.register_buffer("digits", images.batch(torch.tensor([*firsts[:9], firsts[0]])))

    def forward(self, x, sigma, class_labels=None):
        return self.digits[class_labels.argmax(dim=1)]


def test_a_model_with_classes_is_asked_for_each_and_told_how_often_it_obeyed(judge):
    row = evaluate(DrawsItsClass(), judge, num_steps=1, batch_size=250)
    assert row["as_asked"] == pytest.approx(0.9, abs=1e-6), "all but the nines are what was asked for"
    assert row["class_shares"] == [0.2, *[0.1] * 8, 0.0]
    assert list(summary([row]).items())[-1] == ("as asked", "90.0 %")
    assert judge.real["as_asked"] > 0.98


def test_the_shipped_model_with_classes_draws_what_it_is_asked_for():
    digits = sample_images(load_denoiser("lesson-conditional", device="cpu"), 100, classes=range(10), num_steps=8)
    guesses = load_classifier()(digits).argmax(dim=1)
    assert (guesses == torch.arange(100) % 10).float().mean() >= 0.95, "98 in 100 on average"
