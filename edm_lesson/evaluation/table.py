"""Measurements as rows of a CSV file, each added as soon as it is there, and as a table of text."""

import csv
import math
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm.auto import tqdm

from edm_lesson import LessonError
from edm_lesson.data.files import check_output, write_text

Row = dict[str, Any]
WORDS = ("checkpoint", "weights", "design", "solver", "class_shares", "study", "row")  # the other columns are numbers
MEASURES = ("distance_ratio", "recognised", "nearest", "copies", "as_asked")
SHARES = ("recognised", "copies", "as_asked")


class TableFile:
    """The rows in a CSV file, told apart by their values in the columns `key`; several processes may add some."""

    def __init__(self, path: Path | str, key: tuple[str, ...]) -> None:
        self.path, self.key = Path(path), key
        if self.path.suffix != ".csv":
            raise LessonError(f"Measurements are kept in a .csv file; {path} is none.")

    def key_of(self, row: Row) -> tuple[str, ...]:
        """What tells `row` from others, as text: numbers are compared as they are written in the file."""
        return tuple(as_text(row.get(name)) for name in self.key)

    def read(self) -> dict[tuple[str, ...], Row]:
        """All rows by their keys; none where there is no file. Warns where the last line is cut off and left out."""
        if not self.path.exists():
            return {}
        rows: dict[tuple[str, ...], Row] = {}
        try:
            if not self.path.is_file() or self.path.stat().st_size > 1e8:
                raise ValueError("it is no file of at most 100 MB")
            text = self.path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            lines = csv.DictReader(StringIO(whole))
            if not {*self.key, "nfe", "distance_ratio"} <= set(lines.fieldnames or ()):
                raise ValueError(f"its columns are {', '.join(lines.fieldnames or ['none'])}")
            if whole != text:
                warnings.warn(f"The last line of {self.path} is cut off and left out.", stacklevel=3)
            for line in lines:
                if None in line or None in line.values() or not line["distance_ratio"]:
                    raise ValueError(f"line {lines.line_num} has too few or too many values")
                numbers = {name: float(cell) for name, cell in line.items() if name not in WORDS and cell}
                if wrong := [name for name, n in numbers.items() if not 0 <= n <= (1 if name in SHARES else math.inf)]:
                    raise ValueError(f"{wrong[0]} is {line[wrong[0]]} in line {lines.line_num}")
                row: Row = {name: cell if name in WORDS else numbers.get(name) for name, cell in line.items()}
                if rows.setdefault(self.key_of(row), row) != row:
                    raise ValueError(f"line {lines.line_num} contradicts one above")
        except (ValueError, KeyError, OSError, csv.Error) as error:
            advice = "Choose another file, or move it away."
            raise LessonError(f"{self.path} holds no such measurements ({error}). {advice}") from error
        return rows

    def add(self, row: Row) -> None:
        """Add `row`, in place of one with the same key."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            rows, text = (self.read() | {self.key_of(row): row}).values(), StringIO()
            columns = dict.fromkeys([*self.key, *chain(*rows)])
            table = csv.DictWriter(text, columns, lineterminator="\n")
            table.writeheader()
            table.writerows({name: as_text(value) for name, value in each.items()} for each in rows)
            write_text(self.path, text.getvalue())

    def complete(self, wanted: Sequence[Row], measure: Callable[[Row], Row], progress: bool = True) -> list[Row]:
        """The `wanted` rows; what `measure` says of a row that is not in the file is added at once."""
        check_output(self.path)
        try:
            for row in tqdm(wanted, unit="row", disable=not progress):
                if self.key_of(row) not in self.read():  # another process may have been here
                    self.add(row | measure(row))
        except KeyboardInterrupt:
            print("Stopped. What was measured is kept; the same command goes on from there.", file=sys.stderr)
            raise
        rows = self.read()
        return [rows[self.key_of(row)] for row in wanted]


def as_text(value: Any) -> str:
    """A value as it is written in the file: numbers with at most ten digits, nothing for None, spaces in a list."""
    if isinstance(value, list):
        return " ".join(map(as_text, value))
    return value if isinstance(value, str) else "" if value is None else f"{value:.10g}"


def mean_and_spread(values: Collection[float], scale: float = 1.0, digits: int = 2) -> str:
    """The mean of `values` and half the distance between the largest and the smallest, as text; times `scale`."""
    middle, spread = sum(values) / len(values) * scale, (max(values) - min(values)) / 2 * scale
    return f"{middle:.{digits}f}" + (f" ± {spread:.{digits}f}" if len(values) > 1 else "")


def summary(rows: Sequence[Row], measures: Iterable[str] = MEASURES) -> dict[str, str]:
    """{title: mean ± spread over `rows`} of those `measures` that they have, for a table."""
    found = {name: [row[name] for row in rows if row.get(name) is not None] for name in measures}
    return {
        name.replace("_", " "): mean_and_spread(values, 100, 1) + " %" if name in SHARES else mean_and_spread(values)
        for name, values in found.items()
        if values
    }


def text_table(lines: list[dict[str, str]], left: Collection[str] = ()) -> str:
    """`lines` of cells, {title: text}, below their titles: flush right, those with a title in `left` flush left."""
    columns = []
    for title in dict.fromkeys(title for line in lines for title in line):
        column = [title, *(line.get(title, "") for line in lines)]
        width = max(map(len, column))
        columns.append([f"{cell:<{width}}" if title in left else f"{cell:>{width}}" for cell in column])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))
