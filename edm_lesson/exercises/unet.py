"""Exercises of notebook 05: how far a stack of layers sees, and attention by hand."""

import torch

from edm_lesson.exercises import compare, exercise


@exercise("05.1")
def receptive_field(attempt):
    def family(start=1, grow=lambda kernel: kernel - 1, with_jump=True, own_stride=False, product=False):
        def width(layers):
            field, jump = start, 1
            for kernel, stride in layers:
                reach = grow(kernel) * (jump if with_jump else 1) * (stride if own_stride else 1)
                field = field * kernel if product else field + reach
                jump *= stride
            return field

        return width

    def summed_jumps(layers):
        field, jump = 1, 1
        for kernel, stride in layers:
            field += (kernel - 1) * jump
            jump += stride - 1
        return field

    def backwards(layers):
        field = 1
        for kernel, stride in layers:
            field = (field - 1) * stride + kernel
        return field

    mistakes = [
        (
            family(with_jump=False),
            "You leave out the strides: after a layer of stride 2 neighbours lie two input pixels apart, so every "
            "later kernel reaches twice as far.",
        ),
        (
            family(grow=lambda kernel: kernel),
            "A kernel of k pixels adds k − 1, not k: one of them was there before.",
        ),
        (
            family(own_stride=True),
            "A layer's own stride counts only for the layers after it: within one layer, neighbours are still as far "
            "apart as before.",
        ),
        (family(product=True), "Fields don't multiply: two kernels of 3 pixels see 5, not 9."),
        (family(start=0), "One pixel too few: without any layer, one pixel sees itself."),
        (
            family(grow=lambda kernel: kernel // 2),
            "That is how far it sees to one side; the width has two sides and the pixel itself.",
        ),
        (summed_jumps, "Strides multiply: after two layers of stride 2 neighbours lie 4 pixels apart, not 3."),
        (
            backwards,
            "You go through the layers in the wrong direction: field = (field − 1)·stride + kernel starts at the last "
            "layer, and the first one comes last.",
        ),
    ]

    def one_of(*numbers):  # drawn by torch, whose random numbers `check` gives back
        return numbers[torch.randint(len(numbers), ())]

    cases = []
    for _ in range(4):
        layers = [(one_of(3, 5), 1), (2, 2), (one_of(3, 5, 7), 1), (3, 2), (3, 1)]
        layers += [(one_of(1, 3, 5), one_of(1, 2)) for _ in range(one_of(1, 2, 3, 4))]
        cases.append((layers,))
    compare(attempt, family(), [*cases, ([(3, 1)],)], mistakes)


@exercise("05.2")
def attend(attempt):
    def by_hand(q, k, v, scale=lambda q: q.shape[-1] ** 0.5, dim=-1, weigh=torch.softmax):
        return weigh(q @ k.transpose(-1, -2) / scale(q), dim) @ v

    def over_queries(q, k, v):
        return by_hand(q, k, v, dim=-2)

    mistakes = [
        (
            lambda q, k, v: by_hand(q, k, v, lambda q: 1.0),
            "The products are too large: divide them by the root of the number of channels before the softmax.",
        ),
        (
            lambda q, k, v: by_hand(q, k, v, lambda q: q.shape[-1]),
            "You divide by the number of channels; it is its root: a sum of d products has a standard deviation of √d.",
        ),
        (
            lambda q, k, v: by_hand(q, k, v, lambda q: q.shape[-2] ** 0.5),
            "Divide by the root of the number of channels, not of the number of pixels.",
        ),
        (
            over_queries,
            "The softmax runs along the wrong axis: the weights of one query must add up to 1 over all keys.",
        ),
        (
            lambda q, k, v: by_hand(k, q, v),
            "Queries and keys are swapped: row i of the product belongs to query i.",
        ),
        (
            lambda q, k, v: by_hand(q, k, v, weigh=lambda scores, dim: scores),
            "The softmax is missing: weights are positive and add up to 1.",
        ),
        (lambda q, k, v: by_hand(q, k, v) + v, "That adds v on top; the block adds its input itself, outside of this."),
        (
            lambda q, k, v: torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1),
            "Those are the weights; what is gathered with them is still missing: multiply with v.",
        ),
    ]
    cases = []
    for pixels, channels in ((6, 4), (9, 16), (5, 12)):
        cases.append(tuple(2 * torch.randn(2, 1, pixels, channels) for _ in range(3)))
    compare(attempt, torch.nn.functional.scaled_dot_product_attention, cases, mistakes)
