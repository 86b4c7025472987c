"""The digit classifier whose features are compared."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from edm_lesson import LessonError
from edm_lesson.checkpoints import load_tensors
from edm_lesson.data import data_folder, normalize

CLASSIFIER = "digit-classifier.safetensors"  # in data/pretrained


def center_crop(x: Tensor) -> Tensor:
    """The central 28×28 of digits (B, 1, H, W) with a border around them; other images are refused."""
    border = (x.shape[-1] - 28) // 2
    if x.ndim != 4 or x.shape[1] != 1 or x.shape[-1] != x.shape[-2] or border < 0:
        raise ValueError(f"The images are {tuple(x.shape)}; only digits, (B, 1, 28, 28) or larger, are measured.")
    return x[..., border : border + 28, border : border + 28]


class DigitClassifier(nn.Module):
    """Which digit is it? Images (B, 1, 28, 28) in [-1, 1], or padded ones, to the logits of ten classes (B, 10)."""

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


def load_classifier(path: Path | None = None, device: str | torch.device = "cpu") -> DigitClassifier:
    """The digit classifier in the file `path` (default: the one that comes with the course), for evaluation only."""
    path = path or data_folder() / "pretrained" / CLASSIFIER
    if not path.is_file():
        mend = "set EDM_LESSON_DATA to the folder of pretrained/, or train one: python data/train_classifier.py"
        raise LessonError(f"The digit classifier is not at {path}; {mend}")
    classifier = DigitClassifier()
    classifier.load_state_dict(load_tensors(path)[0])
    return classifier.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
