"""Exercises of notebook 10: measuring quality."""

import math
from statistics import fmean, pstdev, stdev, variance

import torch

from edm_lesson.exercises import compare, exercise


def straight_line(x, y):
    """Slope and value at 0 of the line of least squares through points, two tensors (n,)."""
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return slope, y.mean() - slope * x.mean()


@exercise("10.1")
def extrapolated(attempt):
    def fitted(of_count, part=1, of_distance=lambda y: y):
        def answer(counts, distances):
            counts, distances = (torch.tensor(values, dtype=torch.float64) for values in (counts, distances))
            return straight_line(of_count(counts), of_distance(distances))[part]

        return answer

    def ends(counts, distances):
        (n, d), (m, e) = (counts[0], distances[0]), (counts[-1], distances[-1])
        return (m * e - n * d) / (m - n)

    cases = []
    for number in range(5):
        counts = torch.randint(50, 10_000, (3 + number,)).unique().tolist()
        limit, bias = 0.05 + torch.rand(()).item(), 100 + 200 * torch.rand(()).item()
        cases.append(
            (counts, [limit + (bias + 30 * torch.rand(()).item()) / n + 0.05 * torch.rand(()).item() for n in counts])
        )
    compare(
        attempt,
        fitted(lambda n: 1 / n),
        cases,
        [
            (
                fitted(lambda n: n),
                "Your line runs over N, and you read it at N = 0, a set without images. Let it run over 1/N: there 0 "
                "is infinitely many.",
            ),
            (
                fitted(lambda n: n**-0.5),
                "You draw the line over 1/√N. The distance is a square, and its bias falls like 1/N.",
            ),
            (
                fitted(lambda n: 1 / n, part=0),
                "That is the slope of the line, how strong the bias is; wanted is its height at 1/N = 0.",
            ),
            (
                lambda counts, distances: distances[-1],
                "That is the distance at the largest N, which still has a bias; go on to 1/N = 0.",
            ),
            (
                ends,
                "Your line goes through the first and the last point only; take the one that fits all of them best.",
            ),
            (
                lambda counts, distances: fmean(distances),
                "That is the mean of the distances, bias and all.",
            ),
            (
                lambda counts, distances: fitted(torch.log, of_distance=torch.log)(counts, distances).exp(),
                "You drew the line on logarithmic axes, as in the picture. There it has no end at N = ∞; take 1/N and "
                "the distance themselves.",
            ),
        ],
        tolerance=1e-3,
    )


@exercise("10.2")
def precision(attempt):
    def family(kth=lambda k: k + 1, radii_of="real", share=lambda inside: inside.any(dim=1)):
        def answer(samples, real, k):
            centers, others = (real, samples) if radii_of == "real" else (samples, real)
            radius = torch.cdist(centers, centers).kthvalue(kth(k), dim=1).values
            return share(torch.cdist(others, centers) <= radius).double().mean()

        return answer

    def nearest_only(samples, real, k):
        radius = torch.cdist(real, real).kthvalue(k + 1, dim=1).values
        distance, index = torch.cdist(samples, real).min(dim=1)
        return (distance <= radius[index]).double().mean()

    def one_radius(samples, real, k):
        radius = torch.cdist(real, real).kthvalue(k + 1, dim=1).values.mean()
        return (torch.cdist(samples, real) <= radius).any(dim=1).double().mean()

    cases = []
    for k in (1, 2, 3, 5):
        features = 2 + torch.randint(3, ()).item()
        real = torch.randn(70 + 10 * k, features) * torch.randn(70 + 10 * k, 1).exp()
        cases.append((2.5 * torch.randn(150, features) + 0.3, real, k))
    compare(
        attempt,
        family(),
        cases,
        [
            (
                family(kth=lambda k: k),
                "Each point is its own nearest neighbour, at distance 0, and you count it: take one more.",
            ),
            (
                family(radii_of="samples"),
                "You draw the balls around the samples and ask how many real points lie in them: that is recall. For "
                "precision the balls are around the real points.",
            ),
            (
                family(share=lambda inside: inside.any(dim=0)),
                "You count the real points with a sample in their ball; count the samples that lie in any ball.",
            ),
            (
                family(share=lambda inside: inside),
                "You average over all pairs of a sample and a ball; a sample counts once it is in any of them.",
            ),
            (
                nearest_only,
                "You look only at the ball of the nearest real point; the ball of another, larger one counts, too.",
            ),
            (
                one_radius,
                "You gave all balls one radius; each real point has its own.",
            ),
            (
                lambda samples, real, k: 1 - family()(samples, real, k),
                "That is the share of samples outside of all balls.",
            ),
        ],
        tolerance=1e-6,
    )


@exercise("10.3")
def standard_errors(attempt):
    def of_differences(spread, count=math.sqrt):
        def answer(a, b):
            differences = [y - x for x, y in zip(a, b, strict=True)]
            return fmean(differences) / (spread(differences) / count(len(differences)))

        return answer

    def unpaired(a, b):
        return (fmean(b) - fmean(a)) / math.sqrt((variance(a) + variance(b)) / len(a))

    cases = []
    for seeds in (3, 4, 6, 9):
        a = (5 + torch.randn(seeds, dtype=torch.float64)).tolist()
        b = [value + 0.5 + 0.4 * torch.randn(()).item() for value in a]
        cases.append((a, b))
    right = of_differences(stdev)
    compare(
        attempt,
        right,
        cases,
        [
            (
                unpaired,
                "You compare two heaps of numbers. The seeds are shared: take the difference seed by seed first, and "
                "the spread of the differences.",
            ),
            (
                of_differences(stdev, lambda n: 1),
                "You divide by the spread of one difference; that of their mean is smaller by √n.",
            ),
            (
                of_differences(stdev, lambda n: n),
                "The spread of a mean of n numbers falls with √n, not with n.",
            ),
            (
                of_differences(pstdev),
                "Your spread divides by n. The mean was taken from the same few numbers, so divide by n − 1.",
            ),
            (
                lambda a, b: -right(a, b),
                "The sign is the other way round: positive where b is larger.",
            ),
            (
                lambda a, b: fmean(b) - fmean(a),
                "That is the mean difference; divide it by its standard error.",
            ),
        ],
        tolerance=1e-3,
    )
