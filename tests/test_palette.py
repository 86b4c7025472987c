"""The colours of the pictures keep their distance from each other, with and without colour vision, and from white."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from edm_lesson.plots.style import COLORS, MARKERS

# Machado, Oliveira and Fernandes 2009, severity 1: what linear RGB looks like without one kind of cone.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour):
    value = np.array(to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(linear_rgb):
    """CIELAB under D65, in which a distance of about 2 is just seen."""
    x, y, z = np.cbrt(XYZ @ np.clip(linear_rgb, 0.001, 1) / XYZ.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_colour_blind_readers_can_tell_all_pairs_of_colours_apart(vision):
    seen = {colour: lab(VISION[vision] @ linear(colour)) for colour in COLORS}
    near = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(COLORS, 2)}
    assert min(near.values()) > 15, min(near, key=near.get)


def test_all_colours_stand_out_against_white():
    contrasts = {colour: 1.05 / (XYZ[1] @ linear(colour) + 0.05) for colour in COLORS}
    assert min(contrasts.values()) >= 3, contrasts


def test_each_colour_has_a_marker_of_its_own():
    assert len(set(MARKERS)) == len(set(COLORS)) == len(COLORS)
