"""How fast the lesson model is on this machine: `python tests/benchmarks/lesson_speed.py [--device cpu]`.

Prints the seconds to load MNIST, to sample sixteen digits at 18 Heun steps, and the images a second in training. Run
it on an otherwise idle machine.
"""

import argparse
import platform
import time

import torch

from edm_lesson.checkpoints import load_denoiser
from edm_lesson.config import load_config
from edm_lesson.data import choose_device, load_images
from edm_lesson.samplers import sample_images
from edm_lesson.training import Trainer


def seconds(action, repeats):
    """The median time that `action` takes, after one run to warm up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[repeats // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    device = choose_device(parser.parse_args().device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(
        f"{device.type} ({name}), {platform.machine()}, torch {torch.__version__}, Python {platform.python_version()}"
    )

    denoiser = load_denoiser("lesson", device)
    trainer = Trainer(load_config("lesson"), load_images("mnist"), device=device)
    batch, steps = trainer.config.training.batch_size, 20
    rows = {
        "load MNIST, extracted before": (seconds(lambda: load_images("mnist"), 5), "s"),
        "sample 16 digits at 18 steps": (seconds(lambda: sample_images(denoiser, 16, num_steps=18), 5), "s"),
        "train": (steps * batch / seconds(lambda: [trainer.step() for _ in range(steps)], 3), "images/s"),
    }
    for what, (value, unit) in rows.items():
        print(f"{what:<30} {value:8.2f} {unit}")


if __name__ == "__main__":
    main()
