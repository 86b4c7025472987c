"""Train the digit classifier that judges samples: `python data/train_classifier.py --out runs/digits.safetensors`."""

from pathlib import Path

import torch
import torch.nn.functional as F
import typer
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandomAffine
from tqdm.auto import tqdm

from edm_lesson.checkpoints import save_tensors
from edm_lesson.data import choose_device, load_images
from edm_lesson.evaluation import DigitClassifier, in_batches

BATCH_SIZE, LEARNING_RATE = 128, 4e-3


def main(
    out: Path = Path("data/pretrained/digit-classifier.safetensors"), epochs: int = 8, images: int = 60_000,
    device: str | None = None,
) -> None:  # fmt: skip
    """Train on `images` of the training digits, `epochs` times, each slightly turned, sheared, scaled and shifted."""
    torch.manual_seed(0)
    train, test = (load_images("mnist", split, device=choose_device(device)) for split in ("train", "test"))
    classifier = DigitClassifier().to(train.pixels.device, memory_format=torch.channels_last)
    jitter = RandomAffine(10, (0.07, 0.07), (0.85, 1.15), 10, InterpolationMode.BILINEAR, fill=-1)
    optimizer = torch.optim.AdamW(classifier.parameters(), LEARNING_RATE, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, epochs * (images // BATCH_SIZE))
    for epoch in range(epochs):
        batches = torch.randperm(images)[: images // BATCH_SIZE * BATCH_SIZE].split(BATCH_SIZE)
        for chosen in tqdm(batches, f"epoch {epoch + 1}"):
            digits = torch.stack([jitter(digit) for digit in train.batch(chosen)])
            loss = F.cross_entropy(classifier(digits), train.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    right = in_batches(classifier.eval(), test.pixels).argmax(dim=1) == test.labels
    accuracy = right.float().mean().item()
    save_tensors(out, classifier.state_dict(), {"digit_classifier": {"test_accuracy": accuracy, "epochs": epochs}})
    print(f"{out} reads {accuracy:.2%} of the test digits")


if __name__ == "__main__":
    typer.run(main)
