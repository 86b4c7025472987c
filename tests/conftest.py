"""What several test files share: one thread a process, MNIST, and networks small enough for seconds."""

import pytest
import torch

from edm_lesson.data import load_images
from edm_lesson.networks import LessonUNet
from edm_lesson.preconditioning import EDMPrecond

torch.set_num_threads(1)  # several test processes share the cores


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
