"""Files that are written whole, or not at all."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import NamedTemporaryFile

from filelock import FileLock, Timeout

from edm_lesson import LessonError


def check_output(path: str | Path, *suffixes: str, name: str = "--out") -> None:
    """Refuse, before the work, a `path` without one of the `suffixes`, or that can't be written; writes nothing."""
    if suffixes and Path(path).suffix not in suffixes:
        raise ValueError(f"{name} is {path}; it must end in {' or '.join(suffixes)}.")
    whole, part = _whole_and_part(path)
    try:
        if whole.exists() and not whole.is_file():
            raise OSError("it is there, and is no file")
        NamedTemporaryFile(prefix=part.name, dir=next(each for each in whole.parents if each.exists())).close()
    except OSError as error:
        raise LessonError(f"Can't write {path} ({error.strerror or error}). Choose another place.") from error


@contextmanager
def written(path: str | Path, previous: Path | None = None) -> Iterator[Path]:
    """A path beside `path` to write to, with its suffix; when the block has ended well, it becomes `path`.

    Then what stood there is at `previous`, if that is given. Otherwise it stays. A link is written through; what a
    killed process left is written over.
    """
    whole, part = _whole_and_part(path)
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            if previous and whole.exists():
                previous.unlink(missing_ok=True)
                try:
                    os.link(whole, previous)  # a second name, so that there is no moment without a file at `path`
                except OSError:  # a disk on which a file has one name only
                    move(whole, previous)
            move(part, whole)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise LessonError(f"Can't write {path} ({error}). What was there before is unchanged.") from error


def _whole_and_part(path):
    path = Path(os.path.realpath(path))
    return path, path.with_name(f".{path.stem}.part{path.suffix}")


def lock(folder: str | Path, timeout: float = -1) -> AbstractContextManager:
    """A context in which no other process has this lock of `folder`; waits `timeout` seconds, -1 for ever."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        return FileLock(Path(folder) / ".lock").acquire(timeout)
    except Timeout:
        raise
    except (OSError, NotImplementedError):  # a folder to read from only, or a file system that knows no locks
        return nullcontext()


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
