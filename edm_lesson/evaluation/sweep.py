"""Sweeps: how good a model's digits are over sampler, solver, steps, sigma_max, rho and churn, a row for each seed."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from pathlib import Path

import torch
from torch import nn

from edm_lesson import visible
from edm_lesson.checks import check_choice, check_count, check_levels
from edm_lesson.designs import SAMPLERS
from edm_lesson.evaluation.judge import Judge, check_digits, check_set_size, evaluate
from edm_lesson.evaluation.table import WORDS, Row, TableFile, as_text, summary, text_table
from edm_lesson.samplers.images import check_batch

SETTINGS = {
    "design": ("edm",), "solver": (None,), "num_steps": (18,), "sigma_max": (None,), "rho": (7.0,), "S_churn": (0.0,),
}  # fmt: skip
KEY = ("weights", "num_samples", *SETTINGS, "seed")  # what tells rows apart
REAL = "real"  # stands for the weights in the row of real digits


def sweep_points(**choices: Sequence) -> list[Row]:
    """Every combination of `choices` of the `SETTINGS`, each once; impossible ones are refused.

    The solver and the sigma_max None are the design's own; rho becomes None where the design has no use for it.
    """
    points: list[Row] = []
    check_count("the number of settings", math.prod(map(len, choices.values())), maximum=10_000)
    for values in product(*(SETTINGS | choices).values()):
        point = dict(zip(SETTINGS, values, strict=True))
        check_choice("sampler", point["design"], SAMPLERS)
        design = SAMPLERS[point["design"]]
        point["solver"] = design.solver if point["solver"] is None else point["solver"]
        point["sigma_max"] = design.sigma_max if point["sigma_max"] is None else point["sigma_max"]
        check_levels(design.sigma_min, point["sigma_max"], point["num_steps"], point["rho"])
        given = {"solver": point["solver"], "S_churn": point["S_churn"], "randn_like": torch.zeros_like}
        design.sample(lambda x, sigma, class_labels=None: x, torch.zeros(1, 1, 1, 1), num_steps=1, **given)  # a trial
        if point["design"] not in ("edm", "dpmpp_2m"):
            point["rho"] = None
        if point not in points:
            points.append(point)
    return points


def sweep(
    denoiser: nn.Module, make_judge: Callable[[int], Judge], points: Sequence[Row], path: Path | str, *,
    num_samples: int = 2000, seeds: int = 3, checkpoint: str = "", batch_size: int | None = None,
    own_digits: bool = False,
) -> list[Row]:  # fmt: skip
    """Measure what the CSV file `path` lacks of `points`, each with `seeds` seeds: all rows, that of real digits last.

    All points get their first seed, then their second, and so on. `make_judge(num_samples)` is called where a row is
    missing. The name of the `checkpoint` is only written down: models are told apart by their weights. A `denoiser`
    with a `config` must have been trained on MNIST, or on `own_digits`.
    """
    check_count("seeds", seeds, maximum=1000)
    check_set_size("num_samples", num_samples)
    check_batch("batch_size", 64 if batch_size is None else batch_size)
    check_digits(denoiser, own_digits)
    judge_once = cache(lambda: make_judge(num_samples))

    def measure(row: Row) -> Row:
        judge = judge_once()
        if row["weights"] == REAL:
            return judge.real
        design, started = SAMPLERS[row["design"]], time.perf_counter()
        chosen = {name: row[name] for name in SETTINGS if name != "design" and row[name] is not None}
        found = evaluate(denoiser, judge, row["seed"], batch_size, own_digits, sampler=design.sample, **chosen)
        found["nfe"] = design.nfe(row["num_steps"], row["solver"])
        return found | {"seconds": round(time.perf_counter() - started, 2)}

    about = {"weights": digest(denoiser), "num_samples": num_samples, "checkpoint": visible(checkpoint)}
    wanted = [about | point | {"seed": seed} for seed in range(seeds) for point in points]
    return TableFile(path, KEY).complete([*wanted, {"weights": REAL, "num_samples": num_samples}], measure)


def read_sweep(path: Path | str) -> list[Row]:
    """The rows of a sweep's CSV file."""
    return list(TableFile(path, KEY).read().values())


def digest(denoiser: nn.Module) -> str:
    """Twelve hexadecimal digits that tell a denoiser's weights from others."""
    total = hashlib.sha256()
    for name, tensor in sorted(denoiser.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()[:12]


def groups_of(rows: Sequence[Row]) -> list[tuple[dict[str, str], list[Row]]]:
    """`rows` of one model as pairs: {setting that varies: its value for people}, and the rows of all its seeds."""
    rows = [row for row in rows if row["weights"] != REAL]
    varied = [name for name in SETTINGS if len({row[name] for row in rows}) > 1] or ["num_steps"]
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(as_text(row[name]) or "–" for name in varied), []).append(row)
    return [(dict(zip(varied, values, strict=True)), group) for values, group in groups.items()]


def sweep_table(rows: Sequence[Row]) -> str:
    """A table as text: what varies, network evaluations (NFE), mean ± spread over the seeds, and real digits."""
    lines = [values | {"NFE": as_text(group[0]["nfe"])} | summary(group) for values, group in groups_of(rows)]
    real = summary([row for row in rows if row["weights"] == REAL])
    lines.append({next(iter(lines[0])): REAL} | {title: cell for title, cell in real.items() if title in lines[0]})
    return text_table(lines)


def sweep_lines(rows: Sequence[Row]) -> tuple[str, dict[str, tuple]]:
    """What to draw of a sweep: the name of the x axis, and {line: (x, lists of one ratio per seed)}, sorted by x.

    x is the number of network evaluations where that varies, or else the number that does and that all rows have.
    """
    groups = groups_of(rows)
    numbers = [name for name in groups[0][0] if all(isinstance(group[0][name], float | int) for _, group in groups)]
    x = "nfe" if len({group[0]["nfe"] for _, group in groups}) > 1 or not numbers else numbers[-1]
    lines: dict[str, list] = {}
    for values, group in groups:
        values.pop("num_steps" if x == "nfe" else x, None)
        line = ", ".join(text if name in WORDS else f"{name} {text}" for name, text in values.items())
        lines.setdefault(line, []).append((group[0][x], [row["distance_ratio"] for row in group]))
    return x, {line: tuple(zip(*sorted(points), strict=True)) for line, points in lines.items()}
