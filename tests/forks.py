"""Processes of their own for tests, forked from one that holds the package already, so that each starts at once."""

import multiprocessing
import traceback
from contextlib import contextmanager

import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["edm_lesson.training", "torch._dynamo", "hypothesis", "PIL.Image", "pytest"])


@contextmanager
def forked(*calls):
    """Processes that make one of the `calls` each, a function of a test module and its arguments; none outlives this.

    What a call prints or raises is shown by pytest; the exit code of a process that raised is 1.
    """
    processes = [CONTEXT.Process(target=_call, args=call, daemon=True) for call in calls]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _call(function, *arguments):
    torch.set_num_threads(1)
    try:
        function(*arguments)
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None


def exit_codes(*calls, timeout=60):
    """Make the `calls` at once, each in a process of its own, and return their exit codes; None: it didn't end."""
    with forked(*calls) as processes:
        for process in processes:
            process.join(timeout)
        return [process.exitcode for process in processes]
