"""What several test files share: one thread a process, MNIST, and networks small enough for seconds."""

import signal
import sys

import pytest
import torch

from edm_lesson import cli
from edm_lesson.data import load_images
from edm_lesson.networks import LessonUNet
from edm_lesson.preconditioning import EDMPrecond

torch.set_num_threads(1)  # several test processes share the cores
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started the tests in the background


@pytest.fixture(scope="session")
def mnist():
    return load_images("mnist")


@pytest.fixture
def make_denoiser():
    """A tiny denoiser whose weights are random throughout, so that nothing is hidden by layers that start at zero."""

    def make(seed=0, sigma_data=0.5, **settings):
        settings = {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (), **settings}
        torch.manual_seed(seed)
        denoiser = EDMPrecond(LessonUNet(**settings), sigma_data)
        for parameter in denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        return denoiser.eval()

    return make


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: its exit code, what it printed, and what it said of errors.

    A command that ends with a message has that for its exit code, too.
    """

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["edm-lesson", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        code, text = stop.value.code, capsys.readouterr()
        return code, text.out, text.err + (code if isinstance(code, str) else "")

    return call
