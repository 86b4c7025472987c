"""A judge of samples: the distance ratio of their features, the share recognised, and copies of training digits."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edm_lesson.checks import check_count
from edm_lesson.config import Config
from edm_lesson.data import choose_device, load_images, normalize, to_uint8
from edm_lesson.evaluation.classifier import center_crop, in_batches, load_classifier
from edm_lesson.evaluation.distance import distance_ratio
from edm_lesson.evaluation.table import Row
from edm_lesson.samplers import sample_images

CONFIDENCE = 0.95  # a digit counts as recognised when the classifier is at least that sure of its class
check_set_size = partial(check_count, minimum=2, maximum=10_000)  # of digits that are judged: no more than to test


def check_digits(model: nn.Module | Config, own_digits: bool = False) -> None:
    """Refuse a model of images that can't be digits, and one that wasn't trained on MNIST, unless `own_digits`.

    `model` is a configuration, or a denoiser that has one as `config`; others don't say what they draw.
    """
    data: Any = getattr(getattr(model, "config", model), "data", None)
    if data is None:
        return
    center_crop(torch.empty(1, data.img_channels, data.img_resolution, data.img_resolution, device="meta"))
    if data.name != "mnist" and not own_digits:
        found = f"The model was trained on {data.name}, but only digits like MNIST's are measured"
        raise ValueError(f"{found}; if it draws such digits, add --own-digits (in Python: own_digits=True).")


def nearest_distances(pixels: Tensor, others: Tensor, size: int = 500) -> tuple[Tensor, Tensor]:
    """For each of the uint8 images `pixels` (N, C, H, W) the index of and the distance to the nearest of `others`.

    The distance is the root of the summed squares of all pixels' differences, pixels in [-1, 1].
    """
    targets = normalize(others).flatten(1)
    nearest = [torch.cdist(normalize(part).flatten(1), targets).min(dim=1) for part in pixels.split(size)]
    return torch.cat([part.indices for part in nearest]), torch.cat([part.values for part in nearest])


class Judge:
    """Measures sets of `count` digits against MNIST. Never compare across counts: the ratio depends on them.

    `judge(pixels)` takes uint8 images (`count`, 1, 28, 28) (or padded ones) and returns a dictionary:

    distance_ratio : Fréchet distance to the test digits over that of real training digits; 1 is as good as real.
    recognised : the share of which the classifier is sure, at 95 % confidence.
    class_shares : how much of each class there is, by the classifier's best guess.
    nearest : the median distance to the nearest training digit.
    copies : the share nearer to a training digit than all but 1 % of the test digits are; real digits have 0.01.
    as_asked : the share whose class, by the classifier's best guess, is that of `classes` (`count`,); only with these.

    `judge.real` holds the same of the first `count` test digits, where the ratio is 1 by definition.
    """

    def __init__(self, count: int = 2000, device: str | torch.device | None = "cpu") -> None:
        check_set_size("num_samples", count)
        device = choose_device(device)
        self.count, self.classifier = count, load_classifier(device=device)
        train, test = (load_images("mnist", split, device=device) for split in ("train", "test"))
        self.train_pixels = train.pixels
        self.train_features = in_batches(self.classifier.features, train.pixels)
        self.test_features = in_batches(self.classifier.features, test.pixels)
        _, nearest = nearest_distances(test.pixels[: max(count, 2000)], train.pixels)
        self.close = nearest[:2000].quantile(0.01).item()
        real = self.describe(self.test_features[:count], nearest[:count], test.labels[:count])
        self.real = {"distance_ratio": 1.0} | real

    def describe(self, features: Tensor, nearest: Tensor, classes: Tensor | None = None) -> Row:
        """What is said of each set by itself, from its features and its distances to the nearest training digits."""
        with torch.inference_mode():
            probabilities = self.classifier.head(features).softmax(dim=1)
        guesses = probabilities.argmax(dim=1)
        asked = {} if classes is None else {"as_asked": (guesses == classes.to(guesses.device)).float().mean().item()}
        return asked | {
            "recognised": (probabilities.amax(dim=1) >= CONFIDENCE).float().mean().item(),
            "class_shares": [round(share, 4) for share in (guesses.bincount(minlength=10) / len(guesses)).tolist()],
            "nearest": nearest.median().item(),
            "copies": (nearest < self.close).float().mean().item(),
        }

    def __call__(self, pixels: Tensor, classes: Tensor | None = None) -> Row:
        if len(pixels) != self.count:
            raise ValueError(f"{len(pixels)} images were given; this judge measures sets of {self.count}.")
        pixels = center_crop(pixels.to(self.train_pixels.device))
        features = in_batches(self.classifier.features, pixels)
        _, nearest = nearest_distances(pixels, self.train_pixels)
        ratio = distance_ratio(features, self.train_features, self.test_features)
        return {"distance_ratio": ratio} | self.describe(features, nearest, classes)


def evaluate(
    denoiser: nn.Module, judge: Judge, seed: int = 0, batch_size: int | None = None, own_digits: bool = False,
    **settings: Any,
) -> Row:  # fmt: skip
    """What `judge` says of `judge.count` samples of `denoiser`; no two seeds share an image.

    `settings` go to `sample_images`: `sampler`, `num_steps`, churn and so on; the `batch_size` is by default the one
    that is fastest with the lesson model. Of a denoiser with classes these are drawn in turn, and the judge is told.
    `own_digits` is that of `check_digits`.
    """
    check_digits(denoiser, own_digits)
    if batch_size is None:
        batch_size = 64 if all(parameter.is_cpu for parameter in denoiser.parameters()) else 500
    count, label_dim = judge.count, getattr(denoiser, "label_dim", 0)
    settings |= {"first": seed * count, "classes": range(label_dim) or None, "batch_size": batch_size}
    asked = {"classes": torch.arange(count) % label_dim} if label_dim else {}
    return judge(to_uint8(sample_images(denoiser, count, **settings)), **asked)
