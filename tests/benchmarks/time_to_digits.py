"""From nothing to digits: `python tests/benchmarks/time_to_digits.py [--device cpu] [--minutes 10 | --images N]`.

Trains the lesson model and measures its distance ratio (2,000 digits, 18 steps) as it goes. Prints after how many
seconds of training and how many images the ratio first was 10 or better, then 5, then 2. Measuring does not count
as training. The run is kept in `--out` as `edm-lesson train` keeps one. Run it on an otherwise idle machine.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from edm_lesson.config import load_config
from edm_lesson.data import choose_device, load_images
from edm_lesson.evaluation import Judge, evaluate
from edm_lesson.training import Trainer, images_in
from edm_lesson.training.run import describe_environment

TARGETS = (10, 5, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    parser.add_argument("--config", default="lesson")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="train for about so long")
    budget.add_argument("--images", type=int, help="train on so many images; default: the configuration's")
    parser.add_argument("--looks", type=int, default=6, help="how often to measure, evenly over the run")
    parser.add_argument("--set", action="append", default=[], help="change a setting: section.key=value")
    parser.add_argument("--out", type=Path, default=Path("runs/time_to_digits"))
    options = parser.parse_args()

    device, config, images = (
        choose_device(options.device),
        load_config(options.config, options.set),
        load_images("mnist"),
    )
    budget = options.images or config.training.images
    if options.minutes:
        budget = images_in(options.minutes, config, images, device)
    config = replace(config, training=replace(config.training, images=budget, sample_every=0))
    judge, trainer, looks = Judge(device=device), Trainer(config, images, options.out, device), []
    for look in range(1, options.looks + 1):
        trainer.train(until=max(1, budget * look // options.looks))
        row = evaluate(trainer.ema_denoiser, judge, num_steps=18, progress=True)
        looks.append({"images": trainer.images_seen, "seconds": trainer.seconds, **row})
        print(
            f"{trainer.images_seen:10,} images  {trainer.seconds:7.0f} s  ratio {row['distance_ratio']:6.2f}  "
            f"recognised {row['recognised']:.1%}",
            flush=True,
        )
    for target in TARGETS:
        reached = [look for look in looks if look["distance_ratio"] <= target]
        told = f"{reached[0]['seconds']:.0f} s, {reached[0]['images']:,} images" if reached else "not reached"
        print(f"ratio {target:>2}: {told}")
    trainer.save_denoiser(options.out / "denoiser.safetensors")
    result = {"looks": looks, "environment": describe_environment(device, trainer.dtype)}
    (options.out / "time_to_digits.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
