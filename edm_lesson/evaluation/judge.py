"""Measuring quality: a digit classifier, the Fréchet distance of its features, and what they say about samples.

The distance ratio compares 2,000 images with the 10,000 test digits; 1 is as good as real digits. It depends on the
number of images: never compare across numbers.
"""

import torch

from edm_lesson.checks import check_count
from edm_lesson.data import choose_device, load_images, normalize, to_uint8
from edm_lesson.designs import DESIGNS, choose_sampler
from edm_lesson.evaluation.classifier import central, load_classifier
from edm_lesson.evaluation.distance import frechet_distance, real_distance
from edm_lesson.samplers import sample_images

CONFIDENCE = 0.95  # a digit counts as recognised when the classifier is at least that sure of its class


def check_digits(denoiser):
    """Refuse a `denoiser` of images that aren't digits as `central` takes them. Raises `ValueError`."""
    channels, size = denoiser.img_channels, denoiser.img_resolution
    if channels != 1 or size < 28:
        raise ValueError(
            f"This model draws images of {channels}×{size}×{size}; measured are digits, 1×28×28 or with a border."
        )


def in_batches(function, pixels, size=100):
    """`function` of uint8 images (N, C, H, W), normalised, `size` at a time."""
    with torch.inference_mode():
        return torch.cat([function(normalize(part)) for part in pixels.split(size)])


def nearest_distances(pixels, others, size=500):
    """For each of the uint8 images `pixels` (N, C, H, W) the index of and the distance to the nearest of `others`.

    The distance is the root of the summed squares of all pixels' differences, pixels in [-1, 1].
    """
    targets = normalize(others).flatten(1)
    indices, distances = [], []
    for part in pixels.split(size):
        distance, index = torch.cdist(normalize(part).flatten(1), targets).min(dim=1)
        indices.append(index)
        distances.append(distance)
    return torch.cat(indices), torch.cat(distances)


class Judge:
    """Measures sets of `count` digits against MNIST: made once, used for many sets.

    `judge(pixels)` takes uint8 images (`count`, 1, 28, 28) (or padded ones) and returns a dictionary:

    distance_ratio : Fréchet distance to the test digits over that of real training digits; 1 is as good as real.
    recognised : the share of which the classifier is sure, at 95 % confidence.
    class_shares : how much of each class there is, by the classifier's best guess.
    nearest : the median distance to the nearest training digit.
    copies : the share nearer to a training digit than all but 1 % of the test digits are; real digits have 0.01.
    as_asked : the share whose class, by the classifier's best guess, is that of `classes` (`count`,); only with these.

    `judge.real` holds the same of the first `count` test digits, where the ratio is 1 by definition.
    """

    def __init__(self, count=2000, classifier=None, device="cpu"):
        check_count("num_samples", count, minimum=2)
        device = choose_device(device)
        self.count, self.classifier = count, classifier or load_classifier(device=device)
        self.train, test = load_images("mnist", "train", device=device), load_images("mnist", "test", device=device)
        self.test_features = in_batches(self.classifier.features, test.pixels)
        self.distance = real_distance(
            count, in_batches(self.classifier.features, self.train.pixels), self.test_features
        )
        _, nearest = nearest_distances(test.pixels[: max(count, 2000)], self.train.pixels)
        self.close = nearest[:2000].quantile(0.01).item()
        real = self.describe(self.test_features[:count], nearest[:count], test.labels[:count])
        self.real = real | {"distance_ratio": 1.0}

    def describe(self, features, nearest, classes=None):
        """What is said of each set by itself, from its features and its distances to the nearest training digits."""
        with torch.inference_mode():
            probabilities = self.classifier.head(features).softmax(dim=1)
        guesses = probabilities.argmax(dim=1)
        shares = guesses.bincount(minlength=10) / len(features)
        asked = {} if classes is None else {"as_asked": (guesses == classes.to(guesses.device)).float().mean().item()}
        return asked | {
            "recognised": (probabilities.amax(dim=1) >= CONFIDENCE).float().mean().item(),
            "class_shares": [round(share, 4) for share in shares.tolist()],
            "nearest": nearest.median().item(),
            "copies": (nearest < self.close).float().mean().item(),
        }

    def __call__(self, pixels, classes=None):
        if len(pixels) != self.count:
            raise ValueError(f"{len(pixels)} images were given; this judge measures sets of {self.count}.")
        pixels = central(pixels.to(self.train.pixels.device))
        features = in_batches(self.classifier.features, pixels)
        _, nearest = nearest_distances(pixels, self.train.pixels)
        ratio = frechet_distance(features, self.test_features) / self.distance
        return {"distance_ratio": ratio} | self.describe(features, nearest, classes)


def batch_size_for(device):
    """How many images at a time are sampled fastest on `device`, as measured with the lesson model."""
    return 64 if torch.device(device).type == "cpu" else 500


def evaluate(denoiser, judge, *, seeds=3, progress=True, **settings):
    """What `judge` says of `judge.count` samples of `denoiser`, for each of `seeds` sampling seeds: a list.

    `settings` go to `sample_images`: `num_steps`, `batch_size`, churn and so on.
    """
    check_count("seeds", seeds)
    return [evaluate_seed(denoiser, judge, seed, progress=progress, **settings) for seed in range(seeds)]


def evaluate_seed(denoiser, judge, seed, **settings):
    """What `judge` says of `judge.count` samples of `denoiser`, with `seed` added; no two seeds share an image.

    Of a denoiser with classes these are drawn in turn, and the judge is told.
    """
    count, label_dim = judge.count, getattr(denoiser, "label_dim", 0)
    asked = {"classes": torch.arange(count) % label_dim} if label_dim else {}
    samples = sample_images(denoiser, count, seed=seed * count, classes=range(label_dim) or None, **settings)
    return {"seed": seed, **judge(to_uint8(samples, getattr(denoiser, "offset", (0.0,))), **asked)}


def evaluate_steps(denoiser, judge, num_steps, column="edm", **settings):
    """`evaluate` for each of several numbers of steps of a sampler, that of a `column` of Table 1: its rows in one
    list, with `num_steps` and `nfe`, the network evaluations, added."""
    design, settings["sampler"] = DESIGNS[column], choose_sampler(column)
    return [
        {"num_steps": steps, "nfe": design.nfe(steps), **row}
        for steps in num_steps
        for row in evaluate(denoiser, judge, num_steps=steps, **settings)
    ]


def mean_and_spread(values, scale=1.0, digits=2):
    """The mean of `values` and half the distance between the largest and the smallest, as text; times `scale`."""
    middle, spread = sum(values) / len(values) * scale, (max(values) - min(values)) / 2 * scale
    return f"{middle:.{digits}f}" + (f" ± {spread:.{digits}f}" if len(values) > 1 else "")


def quality_table(rows, judge):
    """A table as text: for each number of steps in `rows` mean ± spread over the seeds, and what real digits score.

    What was "as asked" is a column where `rows` have it.
    """
    columns = {"distance_ratio": "distance ratio", "recognised": "recognised", "nearest": "nearest", "copies": "copies"}
    if "as_asked" in rows[0]:
        columns["as_asked"] = "as asked"
    lines = [f"{'steps':>5} {'NFE':>4}" + "".join(f"  {title:>14}" for title in columns.values())]
    groups = {row["num_steps"]: [other for other in rows if other["num_steps"] == row["num_steps"]] for row in rows}
    for steps, group in {**groups, None: [judge.real]}.items():
        line = f"{steps or 'real':>5} {group[0].get('nfe', ''):>4}"
        for name in columns:
            values = [row[name] for row in group]
            share = name not in ("distance_ratio", "nearest")
            line += f"  {mean_and_spread(values, 100, 1) + ' %' if share else mean_and_spread(values):>14}"
        lines.append(line)
    return "\n".join(lines)
