"""All that is to be measured on a GPU, one after the other: `python tests/benchmarks/on_gpu.py [--only speed,lesson]`.

speed     sixteen digits, training, what makes it fast, what the sampler adds
memory    what edm.yaml and lesson.yaml need, counted and measured
lesson    the lesson model from nothing until its ratio is 10, 5 and 2; then three sampling seeds of it
fp16      the same training in float16, as a T4 would
ablation  the paper's A to F with three training seeds
notebooks the code of all notebooks, as plain Python, with the seconds that each takes
edm       the full edm.yaml for `--minutes`, then one sampling seed of it

Each prints what it does; the same goes to NAME.log in `--out`. A command that fails is reported and the others still
run. Nothing has to be installed but the package's own requirements. Run it on an otherwise idle machine.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def commands(device, minutes, out):
    """What each name stands for: lists of commands, each a list of a file or module and its arguments."""
    run, on = ["-m", "edm_lesson"], ["--device", device]
    lesson, fp16, edm = (out / "runs" / name for name in ("lesson", "fp16", "edm"))
    speed, memory, digits = (f"tests/benchmarks/{name}.py" for name in ("training_speed", "memory", "time_to_digits"))
    return {
        "speed": [["tests/benchmarks/lesson_speed.py", *on], [speed, *on, "--out", out / "training_speed.json"]],
        "memory": [[memory, "--config", config, *on] for config in ("edm", "lesson")],
        "lesson": [
            [digits, "--looks", 12, *on, "--out", lesson],
            [*run, "evaluate", "--checkpoint", lesson, "--num-steps", "4,8,18,40", *on, "--out", out / "lesson.csv"],
        ],
        "fp16": [[digits, "--looks", 3, "--set", "training.precision=fp16", *on, "--out", fp16]],
        "notebooks": [["tests/plain_notebooks.py", "all"]],
        "ablation": [[*run, "study", "ablation", "--seeds", 3, *on, "--out", out / "ablation"]],
        "edm": [
            [*run, "train", "--config", "edm", "--minutes", minutes, *on, "--out", edm],
            [*run, "evaluate", "--checkpoint", edm, "--seeds", 1, *on, "--out", out / "edm.csv"],
        ],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names, such as speed,lesson; default: all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8, help="how long edm.yaml is trained")
    parser.add_argument("--out", type=Path, default=Path("runs/on_gpu"))
    given = parser.parse_args()
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    chosen = commands(given.device, given.minutes, given.out)
    names = given.only.split(",") if given.only else list(chosen)
    if unknown := [name for name in names if name not in chosen]:
        parser.error(f"{', '.join(unknown)} is nothing to measure; there are {', '.join(chosen)}.")

    failed = 0
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for name in names:
        with open(given.out / f"{name}.log", "w") as log:
            for arguments in chosen[name]:
                line = [sys.executable, *map(str, arguments)]
                print(f"\n== {name}: {' '.join(line[1:])}", flush=True)
                started = time.perf_counter()
                shown = subprocess.Popen(
                    line, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
                for text in shown.stdout:
                    sys.stdout.write(text)
                    log.write(text)
                status = shown.wait()
                end = f"{'done' if status == 0 else f'failed ({status})'} in {time.perf_counter() - started:.0f} s"
                print(f"== {name}: {end}", flush=True)
                print(f"== {name}: {end}", file=log, flush=True)
                failed += status != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
