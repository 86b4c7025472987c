"""The digit classifier whose features are compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from edm_lesson import LessonError
from edm_lesson.checkpoints import load_tensors, save_tensors
from edm_lesson.data import Images, data_folder, normalize

CLASSIFIER = "digit-classifier.safetensors"  # in data/pretrained


def center_crop(x: Tensor) -> Tensor:
    """The central 28×28 of digits (B, 1, H, W) with a border around them; other images are refused."""
    border = (x.shape[-1] - 28) // 2
    if x.ndim != 4 or x.shape[1] != 1 or x.shape[-1] != x.shape[-2] or border < 0:
        raise ValueError(f"The images are {tuple(x.shape)}; only digits, (B, 1, 28, 28) or larger, are measured.")
    return x[..., border : border + 28, border : border + 28]


class DigitClassifier(nn.Module):
    """Which digit is it? Images (B, 1, 28, 28) in [-1, 1] to the logits of ten classes (B, 10).

    Larger images, such as digits padded to 32×32, are cut to the central 28×28.
    """

    def __init__(self) -> None:
        super().__init__()
        widths, strides = [1, 32, 32, 64, 64, 128, 128], [1, 2, 1, 2, 1, 1]
        layers = [
            nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after, stride in zip(widths, widths[1:], strides, strict=False)
        ]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(widths[-1], 10)

    def features(self, x: Tensor) -> Tensor:
        """The penultimate layer, (B, 128): what the Fréchet distance compares."""
        return self.body(center_crop(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def in_batches(function: Callable[[Tensor], Tensor], pixels: Tensor, size: int = 100) -> Tensor:
    """`function` of uint8 images (N, C, H, W), normalized, `size` at a time."""
    with torch.inference_mode():
        return torch.cat([function(normalize(part)) for part in pixels.split(size)])


def accuracy(classifier: DigitClassifier, images: Images) -> float:
    """The share of `images` whose digit `classifier` reads right."""
    return (in_batches(classifier, images.pixels).argmax(dim=1) == images.labels).float().mean().item()


def train_classifier(images: Images, epochs: int = 8, seed: int = 0, progress: bool = True) -> DigitClassifier:
    """A classifier trained on `images` with small random shifts, turns and scalings."""
    device, batch_size, learning_rate = images.pixels.device, 128, 4e-3
    generator = torch.Generator(device).manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = DigitClassifier().to(device, memory_format=torch.channels_last).train()
    steps = epochs * (len(images) // batch_size)
    optimizer = torch.optim.AdamW(classifier.parameters(), learning_rate, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    with tqdm(total=steps * batch_size, unit="image", unit_scale=True, disable=not progress) as bar:
        for _ in range(epochs):
            order = torch.randperm(len(images), generator=generator, device=device)
            for chosen in order[: len(order) // batch_size * batch_size].split(batch_size):
                loss = F.cross_entropy(classifier(jitter(images.batch(chosen), generator)), images.labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                bar.update(batch_size)
    return classifier.eval().requires_grad_(False)


def jitter(x: Tensor, generator: torch.Generator) -> Tensor:
    """Digits (B, 1, H, W), each turned by up to 0.2 radians, stretched by up to 15 % and shifted by up to 0.14
    half-widths, in both directions."""

    def uniform(most: float) -> Tensor:
        return most * (2 * torch.rand(len(x), generator=generator, device=x.device) - 1)

    angle, wide, high = uniform(0.2), 1 + uniform(0.15), 1 + uniform(0.15)
    rows = [
        torch.stack([wide * angle.cos(), -angle.sin(), uniform(0.14)], dim=1),
        torch.stack([angle.sin(), high * angle.cos(), uniform(0.14)], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # black beyond the border


def save_classifier(classifier: DigitClassifier, path: Path, **facts: Any) -> None:
    """Write a classifier's weights and plain `facts` about it, such as its accuracy, to `path`."""
    save_tensors(path, classifier.state_dict(), {"digit_classifier": facts})


def load_classifier(path: Path | None = None, device: str | torch.device = "cpu") -> DigitClassifier:
    """The digit classifier in the file `path` (default: the one that comes with the course), for evaluation only."""
    path = path or data_folder() / "pretrained" / CLASSIFIER
    tensors, header = load_tensors(path) if path.is_file() else ({}, {})
    if "digit_classifier" not in header:
        raise LessonError(f"The digit classifier is not at {path}. Train one with: edm-lesson train-classifier")
    classifier = DigitClassifier()
    classifier.load_state_dict(tensors)
    return classifier.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
