"""On a machine with a GPU the notebooks compute there: no tensor of the one device meets one of the other.

They run on a second device that is only pretended, which takes a few minutes: `pytest -m devices`.
"""

import copy
import json
import re
import sys

import numpy as np
import plain_notebooks
import pytest
import torch
import two_devices
from two_devices import DEVICE, HOME, TwoDevices

from edm_lesson import checkpoints, data, evaluation
from edm_lesson.networks import LessonUNet
from edm_lesson.preconditioning import EDMPrecond

NOTEBOOKS = sorted(plain_notebooks.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
QUICK = {"train_images": 64, "test_images": 100, "few": 24}


class Placed(torch.Generator):
    """A generator of one of the two devices."""

    def __new__(cls, device="cpu"):
        generator = super().__new__(cls)
        generator.moved = device == DEVICE
        return generator


@pytest.fixture
def second_device(monkeypatch, path):
    """`choose_device` finds one; what is large is small: results don't matter here, only where they come from."""
    load, images_of, classifier_of = checkpoints.load_denoiser, data.load_images, evaluation.load_classifier

    def choose_device(device=None):
        return DEVICE if device in (None, DEVICE) else HOME

    def load_denoiser(name, device=None):
        if name != "lesson":  # what the notebook itself has trained
            return load(name, HOME).to(choose_device(device))
        denoiser = EDMPrecond(LessonUNet(model_channels=8, channel_mult=(1, 1, 2), num_blocks=1), 0.616)
        denoiser.config = load("lesson", "cpu").config
        for parameter in denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        denoiser.eval().requires_grad_(False)
        return two_devices.watch(denoiser) if choose_device(device) == DEVICE else denoiser

    def load_images(*names, device="cpu", **settings):
        images = images_of(*names, **settings)
        few = None if path.name.startswith("10") else 2000  # 10 knows how many there are
        return data.Images(images.pixels[:few], images.labels[:few]).to(device)

    def load_classifier(*path, device="cpu"):
        classifier = classifier_of(*path)
        return two_devices.watch(classifier) if device == DEVICE else classifier

    def to(module, *args, **kwargs):
        return two_devices.watch(module) if DEVICE in (*args, *kwargs.values()) else to_device(module, *args, **kwargs)

    to_device = torch.nn.Module.to
    for module, name, replacement in [
        (torch.nn.Module, "to", to),
        (data, "choose_device", choose_device),
        (data, "load_images", load_images),
        (checkpoints, "load_denoiser", load_denoiser),
        (evaluation, "load_classifier", load_classifier),
        (torch, "Generator", Placed),
    ]:
        monkeypatch.setattr(module, name, replacement)
    for name, module in plain_notebooks.without_jupyter().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(plain_notebooks.NOTEBOOKS)


PINNED = re.compile(r"set_num_threads|[\"']cpu[\"']")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_pins_the_device_or_the_number_of_threads(path):
    """But for one cell of 06, whose point is that two runs agree to the last bit."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    pinned = [source for source in ("".join(cell["source"]) for cell in cells) if PINNED.search(source)]
    assert len(pinned) == path.name.startswith("06")
    assert all("sums are always taken in one order" in source for source in pinned)
    assert any("device = choose_device()" in "".join(cell["source"]) for cell in cells)


@pytest.mark.devices
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_tensor_of_one_device_meets_one_of_the_other(path, second_device):
    with TwoDevices():
        plain_notebooks.run_cells(path, QUICK, tolerated=AssertionError)


def test_the_second_device_refuses_what_a_gpu_refuses():
    network = torch.nn.Linear(3, 2).requires_grad_(False)
    with TwoDevices():
        here, there = torch.ones(4, 3), torch.ones(4, 3, device=DEVICE)
        assert here.device != there.device == here.to(DEVICE).device == (2 * there)[0].sum().device
        moved = two_devices.watch(copy.deepcopy(network))
        for met in (lambda: here + there, lambda: torch.cat([here, there]), lambda: moved(here)):
            with pytest.raises(RuntimeError, match="expected all tensors on one device"):
                met()
        with pytest.raises(TypeError, match="second device to numpy"):
            np.asarray(there)
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(3, generator=torch.Generator(), device=DEVICE)
        assert torch.equal(moved(there).cpu(), network(here))
        assert torch.equal((there + here.sum()).cpu(), here + 12)  # single numbers of the CPU's may take part
        assert there.tolist() == here.tolist()
        assert torch.equal(here.to(there).cpu(), here)
