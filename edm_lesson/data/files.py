"""Files that are written whole, or not at all."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edm_lesson import LessonError


@contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to, with its suffix; when the block has ended well, it becomes `path`.

    Otherwise what stood there stays. A link is written through; what a killed process left is written over.
    """
    path = Path(os.path.realpath(path))
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            move(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise LessonError(f"Can't write {path} ({error}). What was there before is unchanged.") from error


def move(source: Path, target: Path, patience: float = 2.0) -> None:
    """`os.replace` that tries again for `patience` seconds: on Windows others may hold a file for a moment."""
    end = time.monotonic() + patience
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            if os.name != "nt" or time.monotonic() > end:
                raise
            time.sleep(0.05)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with written(path) as part:
        part.write_text(text, encoding="utf-8")
