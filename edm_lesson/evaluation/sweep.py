"""Sweeps: how good a model's digits are over steps, solver, rho, churn and design, as one tidy CSV.

A row is one sampling seed at one setting. A sweep that was stopped is taken up where it stopped: rows that the file has
are not measured again.
"""

import csv
import hashlib
import time
from itertools import product
from pathlib import Path

import torch
from tqdm.auto import tqdm

from edm_lesson import LessonError
from edm_lesson.checks import check_choice, check_count, check_levels, check_number
from edm_lesson.designs import DESIGNS
from edm_lesson.evaluation import evaluate_seed, mean_and_spread
from edm_lesson.training.run import write_text

SETTINGS = ("design", "solver", "num_steps", "sigma_max", "rho", "S_churn")
KEY = ("weights", "num_samples", *SETTINGS, "seed")  # what tells rows apart
MEASURED = ("nfe", "distance_ratio", "recognised", "nearest", "copies", "seconds")
WORDS = ("weights", "design", "solver")
HEADINGS = ",".join((*KEY, *MEASURED)) + "\n"


def sweep_points(design=("edm",), solver=(None,), num_steps=(18,), sigma_max=(None,), rho=(7.0,), S_churn=(0.0,)):
    """Every combination of the choices, each once, as dictionaries of `SETTINGS`.

    `solver` and `sigma_max` None are the design's own; `rho` is None where the design has no use for it. Raises
    `ValueError` for a design or solver that there is not, and for numbers that no sampler takes.
    """
    points = []
    for values in product(design, solver, num_steps, sigma_max, rho, S_churn):
        point = dict(zip(SETTINGS, values, strict=True))
        check_choice("design", point["design"], DESIGNS)
        column = DESIGNS[point["design"]]
        point["solver"] = point["solver"] or column.solver
        check_choice("solver", point["solver"], ("heun", "euler"))
        if point["sigma_max"] is None:
            point["sigma_max"] = column.sigma_max
        check_levels(point["num_steps"], column.sigma_min, point["sigma_max"], point["rho"])
        check_number("S_churn", point["S_churn"], at_least=0, infinite=True)
        if point["design"] != "edm":
            point["rho"] = None
        if point not in points:
            points.append(point)
    return points


def sweep(denoiser, judge, points, path, seeds=3, batch_size=250, progress=True):
    """Measure `judge.count` samples of `denoiser` at each of `points` with each of `seeds` seeds; the rows, as a list.

    The CSV file `path` is read first, and every row is added to it as soon as it is measured; several processes may add
    to one file. All points get their first seed, then their second, and so on. Raises `LessonError` where `path` is no
    sweep's, and `ValueError` for settings that can't be sampled.
    """
    check_count("seeds", seeds)
    path, weights = Path(path), digest(denoiser)
    measured = {key_of(row): row for row in read_sweep(path)}
    wanted = [
        {"weights": weights, "num_samples": judge.count, **point, "seed": seed}
        for seed in range(seeds)
        for point in points
    ]
    missing = [row for row in wanted if key_of(row) not in measured]
    for row in tqdm(missing, unit="point", disable=not progress):
        design, started = DESIGNS[row["design"]], time.perf_counter()
        settings = {name: row[name] for name in SETTINGS[1:] if row[name] is not None}
        found = evaluate_seed(denoiser, judge, row["seed"], sampler=design.sample, batch_size=batch_size, **settings)
        row["nfe"] = design.nfe(row["num_steps"], row["solver"])
        row |= {name: found[name] for name in MEASURED if name in found}
        row["seconds"] = round(time.perf_counter() - started, 2)
        measured[key_of(row)] = row
        add_row(path, row)
    return [measured[key_of(row)] for row in wanted]


def digest(denoiser):
    """Twelve hexadecimal digits that tell a denoiser's weights from others."""
    total = hashlib.sha256()
    for name, tensor in sorted(denoiser.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()[:12]


def key_of(row):
    """What tells a row from others, as text: numbers are compared as they are written in the file."""
    return tuple(as_text(row[name]) for name in KEY)


def as_text(value):
    """A value as it is written in the file: numbers with at most ten digits, nothing for None."""
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.10g}"


def read_sweep(path):
    """The rows of a sweep's CSV file; none where there is no file.

    A last row that wasn't written to its end is left out. Raises `LessonError` for another file.
    """
    path = Path(path)
    if path.suffix != ".csv":
        raise LessonError(f"A sweep is kept in a .csv file, with its picture beside it; {path} is none.")
    if not path.exists():
        return []
    try:
        headings, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        if headings != HEADINGS:
            raise ValueError(f"its columns are {headings.strip() or 'none'}")
        whole = [line for line in lines if line.endswith("\n")]
        rows = [read_row(number, row) for number, row in enumerate(csv.DictReader([headings, *whole]), 2)]
    except (ValueError, OSError) as error:
        raise LessonError(f"{path} holds no sweep ({error}). Choose another file, or move it away.") from error
    return list({key_of(row): row for row in rows}.values())


def read_row(number, row):
    """A row of the file, numbers as such. Raises `ValueError` where line `number` has too many cells or too few."""
    if None in row or any(not text and name != "rho" for name, text in row.items()):
        raise ValueError(f"line {number} has other than {len(KEY) + len(MEASURED)} values")
    return {name: text if name in WORDS else float(text) if text else None for name, text in row.items()}


def add_row(path, row):
    """Add `row` to the CSV file `path`, made where it is missing; the rest of a row that was cut off is taken away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1] or HEADINGS
    if whole != text:
        write_text(path, whole)
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(",".join(as_text(row[name]) for name in (*KEY, *MEASURED)) + "\n")


def groups_of(rows):
    """`rows` of one sweep as {setting that varies: value, …} -> rows of all its seeds: a list of pairs."""
    varied = [name for name in SETTINGS if len({as_text(row[name]) for row in rows}) > 1] or ["num_steps"]
    groups = {}
    for row in rows:
        groups.setdefault(tuple(as_text(row[name]) for name in varied), []).append(row)
    return [(dict(zip(varied, values, strict=True)), group) for values, group in groups.items()]


def sweep_table(rows):
    """A table as text: what varies, network evaluations, ratio and share recognised, mean ± spread over the seeds."""
    groups = groups_of(rows)
    names = list(groups[0][0])
    lines = ["".join(f"{name:>10} " for name in names) + f"{'NFE':>6}  {'distance ratio':>16}  {'recognised':>16}"]
    for values, group in groups:
        ratio, recognised = ([row[name] for row in group] for name in ("distance_ratio", "recognised"))
        lines.append(
            "".join(f"{value if name in WORDS else short(value):>10} " for name, value in values.items())
            + f"{group[0]['nfe']:>6g}  {mean_and_spread(ratio):>16}  {mean_and_spread(recognised, 100, 1) + ' %':>16}"
        )
    return "\n".join(lines)


def short(text):
    """A number of the file for people: with four digits; a dash where there is none."""
    return f"{float(text):.4g}" if text else "–"


def sweep_lines(rows, measure="distance_ratio"):
    """What to draw of a sweep: the name of the x axis, and {line: (x, list of one value a seed)}, sorted by x.

    x is the number of network evaluations where that varies, or else the number that does and that all rows have.
    """
    groups = groups_of(rows)
    numbers = [name for name in groups[0][0] if name not in WORDS and all(values[name] for values, _ in groups)]
    x = "nfe" if len({row["nfe"] for row in rows}) > 1 or not numbers else numbers[-1]
    lines = {}
    for values, group in groups:
        name = ", ".join(
            value if key in WORDS else f"{key} {short(value)}"
            for key, value in values.items()
            if key not in (x, "num_steps" if x == "nfe" else x)
        )
        lines.setdefault(name, []).append((group[0][x], [row[measure] for row in group]))
    return x, {name: tuple(zip(*sorted(points), strict=True)) for name, points in lines.items()}
