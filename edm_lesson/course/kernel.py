"""Kernels for the course: of the Python that runs, at peace with other programs, and never kept waiting by a slider."""

import functools
import os
import tempfile

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.output_widget import OutputWidget
from nbformat import NotebookNode


class ThisPython(KernelSpecManager):
    """`python3` is the Python that runs, whatever else is installed under that name."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The native kernel for its name; what is installed for all others."""
        if kernel_name == NATIVE_KERNEL_NAME:
            return KernelSpecManager(kernel_dirs=[]).get_kernel_spec(kernel_name)
        return super().get_kernel_spec(kernel_name)


class QuietOutput(OutputWidget):
    """A slider's output without its echo to the kernel.

    nbclient sends every picture back on the socket on which it waits for the cell's reply, past asyncio, which then
    misses the reply now and then, and waits forever. Nobody needs the echo: the widgets' state keeps the pictures.
    """

    def sync_state(self) -> None:
        """Tell the kernel nothing."""


def kernel_environment(**changes: str) -> dict[str, str]:
    """This process's environment, and threads that sleep while they wait: spinning takes cores that others want.

    Jupyter needs a home that it can write to; where there is none, it gets one for as long as this process lives.
    """
    home = os.path.expanduser("~")
    home = home if os.access(home, os.W_OK) else spare_home().name
    return {"OMP_WAIT_POLICY": "passive", **os.environ, "HOME": home, **changes}


spare_home = functools.cache(tempfile.TemporaryDirectory)


def execute(client: NotebookClient, **changes: str) -> NotebookNode:
    """Execute the notebook of an nbclient in a kernel of this Python; `changes` are made in its environment."""
    client.kernel_name = NATIVE_KERNEL_NAME
    client.km = AsyncKernelManager(kernel_name=NATIVE_KERNEL_NAME, kernel_spec_manager=ThisPython())
    client.extra_arguments = ["--IPKernelApp.log_level=40"]  # no warnings about how the kernel is connected
    client.widget_registry["@jupyter-widgets/output"]["OutputModel"] = QuietOutput
    return client.execute(env=kernel_environment(**changes))
