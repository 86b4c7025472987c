"""Exercises of notebook 11: the size of a set of images, turning about any point, and labels for what was done."""

import math

import torch

from edm_lesson.augment import affine, compose, rotate
from edm_lesson.exercises import Wrong, compare, exercise, to_float64


def uniform(low, high):
    """A random number between `low` and `high`."""
    return float(torch.empty(()).uniform_(low, high))


def colored_pixels():
    """Random uint8 images (12, 3, 16, 16), each with a brightness of its own, as has each channel and each place."""
    brightness = 60 * torch.rand(12, 1, 1, 1) + torch.tensor([20.0, 60, 100]).reshape(3, 1, 1) + 50 * torch.rand(16, 16)
    return (brightness + 25 * torch.randn(12, 3, 16, 16)).clamp(0, 255).to(torch.uint8)


@exercise("11.1")
def data_std(attempt):
    def measured(of, scale=127.5, shift=1.0):
        return lambda pixels: of(pixels.double() / scale - shift)

    mistakes = [
        (
            measured(torch.std, 1.0),
            "That is the size in grey levels from 0 to 255; the network is given images in [-1, 1].",
        ),
        (
            measured(torch.std, 255.0),
            "That is the size in [0, 1]; images are given to the network in [-1, 1], so it is twice as large.",
        ),
        (
            measured(lambda x: x.std(dim=(1, 2, 3)).mean()),
            "You measure every image by itself and average: what sets one image apart from another, such as its "
            "brightness, is then left out. All pixels of all images are one heap of numbers.",
        ),
        (
            measured(lambda x: x.std(dim=(2, 3)).mean()),
            "You measure every channel of every image by itself and average. All pixels are one heap of numbers.",
        ),
        (
            measured(lambda x: x.mean(0).std()),
            "That is the standard deviation of the mean image, in which nearly all that images consist of has "
            "averaged out.",
        ),
        (
            measured(lambda x: x.std(0).mean()),
            "You measure around the mean image, pixel by pixel. All pixels are one heap of numbers with one mean.",
        ),
        (
            measured(lambda x: x.std(dim=(0, 2, 3)).mean()),
            "You measure every channel around its own mean: that is right for images that are centred channel by "
            "channel, and these are taken as they are.",
        ),
        (
            measured(lambda x: x.square().mean().sqrt()),
            "That is the root mean square, around 0; the standard deviation is taken around the mean.",
        ),
        (measured(torch.var), "That is the variance; take its root."),
    ]
    compare(attempt, measured(torch.std), [(colored_pixels(),) for _ in range(3)], mistakes, tolerance=2e-3)


@exercise("11.2")
def turn_about(attempt):
    def moved(right, down):
        return affine(torch.ones(1), 0, 0, 1, -right, -down)

    def turned(angle):
        return rotate(torch.tensor([angle]))[0]

    def joined(*steps):
        matrix = steps[0]
        for step in steps[1:]:
            matrix = compose(matrix, step)
        return matrix[0]

    def flat(angle, x, y):
        matrix = to_float64(attempt(angle, x, y), attempt.name)
        if matrix.shape not in ((3, 3), (1, 3, 3)):
            raise Wrong(
                f"{attempt.name} returns shape {tuple(matrix.shape)}; a matrix (3, 3) or (1, 3, 3) is expected."
            )
        return matrix.reshape(3, 3)

    mistakes = [
        (
            lambda angle, x, y: joined(moved(-x, -y), turned(-angle), moved(x, y)),
            "It turns clockwise. (The matrix takes new pixels to old places, so it looks like the turn the other way.)",
        ),
        (
            lambda angle, x, y: joined(moved(x, y), turned(angle), moved(-x, -y)),
            "The two moves are exchanged: what stands still is the point (-x, -y). To bring (x, y) to the centre, each "
            "new pixel is taken from x further right and y further down.",
        ),
        (
            lambda angle, x, y: joined(moved(-x, -y), turned(angle)),
            "The point was brought to the centre and the picture turned, but it has not been moved back.",
        ),
        (
            lambda angle, x, y: joined(turned(angle), moved(x, y)),
            "It is turned about the centre and then moved; before the turn, the point has to be brought to the centre.",
        ),
        (
            lambda angle, x, y: turned(angle)[0],
            "That turns about the centre of the picture, whatever x and y are. (Moves side by side cancel: the turn "
            "belongs between them.)",
        ),
        (
            lambda angle, x, y: joined(moved(-x, y), turned(angle), moved(x, -y)),
            "The sign of y is turned round: y points down here.",
        ),
        (
            lambda angle, x, y: joined(moved(-x, -y), turned(math.radians(angle)), moved(x, y)),
            "The angle is given in radians already.",
        ),
    ]
    cases = [(uniform(0.3, 1.2), uniform(2, 9), uniform(-9, -2)), (uniform(-2.5, -0.5), uniform(-9, -2), uniform(2, 9))]
    compare(
        flat,
        lambda angle, x, y: joined(moved(-x, -y), turned(angle), moved(x, y)),
        cases,
        mistakes,
        tolerance=1e-3,
        name=attempt.name,
    )


@exercise("11.3")
def half_turn_labels(attempt):
    def labels(angles):
        found = to_float64(attempt(torch.tensor(angles)), attempt.name)
        found = found[:, None] if found.ndim == 1 else found
        if found.ndim != 2 or len(found) != len(angles):
            raise Wrong(
                f"For {len(angles)} angles the labels have shape {tuple(found.shape)}; (B, number of labels) it is."
            )
        if not found.isfinite().all():
            raise Wrong("Some labels are infinite or not a number.")
        return found

    grid = [math.pi * (k + uniform(0.3, 0.7)) / 24 - math.pi / 2 for k in range(24)]
    at_grid = labels(grid)
    size = (at_grid - at_grid.mean(0)).norm(dim=1).mean().item()
    nothing = labels([0.0])[0]
    if nothing.abs().max() > 1e-4 * max(size, 1e-3):
        shown = ", ".join(f"{value:.2g}" for value in nothing.tolist())
        raise Wrong(
            f"At angle 0 nothing was done, and the labels must all be 0, because that is what sampling asks for; yours "
            f"are {shown}."
        )
    if (labels([angle + math.pi for angle in grid]) - at_grid).norm(dim=1).max() > 1e-3 * max(size, 1e-3):
        raise Wrong("After half a turn more the picture is the same, but your labels differ.")
    apart = torch.cdist(at_grid, at_grid)
    for one in range(24):
        for other in range(one):
            between = abs(grid[one] - grid[other])
            if min(between, math.pi - between) > 0.25 and apart[one, other] < 0.05 * size:
                one, other = (f"{math.degrees(grid[k]):.0f}°" for k in (one, other))
                raise Wrong(
                    f"Turned by {one} and by {other} the picture looks different, but your labels are the same (or all "
                    "but): one of the two would leak into the other."
                )
    angles = [k * math.pi / 400 for k in range(-400, 401)]
    steps = labels(angles).diff(dim=0).norm(dim=1)
    if steps.max() > 0.3 * size:
        where = math.degrees(angles[int(steps.argmax())])
        raise Wrong(
            f"The labels jump near {where:.0f}°, where the picture hardly changes: for the network these would be two "
            "far places, and it would have to learn them one by one."
        )
