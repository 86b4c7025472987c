"""Pictures of what has no axis of its own: score fields, clouds of points, paths, designs, the shape of a network."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from edm_lesson.plots import style

BLUE, RED = style.COLORS[:2]


@style.picture
def field(
    places: Tensor, arrows: Tensor, likelihood: Tensor, points: Tensor, weights: Tensor, x: Tensor, answer: Tensor,
    title: str = ""
) -> style.Figure:  # fmt: skip
    """Images of two pixels as points of a plane: which way arrows lead, and what a denoiser makes of one image.

    `places` (K, 2), `arrows` (K, 2), drawn at equal length; `likelihood` (n, n) over [-2, 2] x [-2, 2], shaded;
    `points` (N, 2), drawn larger the larger their `weights` (N,); `x` (2,) and the `answer` (2,) to it.
    """
    fig, axis = style.figure((5.2, 5.5))
    shade = {"cmap": "Greys", "vmax": 2 * likelihood.max(), "extent": (-2, 2, -2, 2), "origin": "lower"}
    axis.imshow(likelihood.T.numpy(), vmin=0, interpolation="auto", **shade)
    axis.quiver(*places.T, *normalize(arrows).T, scale=24, width=0.0035, color="0.35", pivot="mid")
    axis.scatter(*points.T, s=25 + 400 * weights, color=BLUE, edgecolor="white", label="clean images y", zorder=3)
    axis.plot(*torch.stack([x, answer]).T, "--", color=RED, zorder=4)
    for place, marker, size, name in ((x, "X", 11, "x"), (answer, "*", 15, "D(x; σ)")):
        axis.plot(*place[:, None], marker, color=RED, markersize=size, markeredgecolor="white", label=name, zorder=5)
    axis.set(xlim=(-2, 2), ylim=(-2, 2), title=title, xlabel="left pixel (−1 black, 1 white)", ylabel="right pixel")
    axis.grid(False)
    style.legend_below(fig, axis)
    fig.legends[0].legend_handles[0].set_sizes([60])
    return fig


@style.picture
def clouds(groups: Mapping[str, Tensor], limit: float = 1.5, size: float = 2.7) -> style.Figure:
    """Images of two pixels as points of a plane: {title: points (N, 2)} side by side, from -`limit` to `limit`."""
    fig, _ = style.figure((len(groups) * size, size + 0.5), 1, len(groups), sharex=True, sharey=True)
    for axis, (title, points) in zip(fig.axes, groups.items(), strict=True):
        axis.plot(*points.T, ".", color="black", markersize=2, alpha=0.4)
        axis.set(title=title, xlabel="left pixel", xlim=(-limit, limit), xticks=[-1, 0, 1], aspect="equal")
    fig.axes[0].set(ylabel="right pixel", ylim=(-limit, limit), yticks=[-1, 0, 1])
    return fig


@style.picture
def paths(panels: Mapping[str, tuple], highlight: int | None = None) -> style.Figure:
    """Solutions x(t) side by side, {title: (t (T,), x (T, B), label of t, label of x, ...)}; t falls to the right.

    Path number `highlight` is drawn bold. More may be given: {marker: (t, x)}, of which a dashed line joins the first
    two; then places (G,) and the density (G, T) there, drawn in grey relative to its largest value at each t.
    """
    size = (3.3 * len(panels), 3.3) if len(panels) > 1 else (7, 3.4)
    fig, _ = style.figure(size, 1, len(panels), (0.72, 0.15, 0.55, 0.3))
    for axis, (title, (t, x, xlabel, ylabel, *more)) in zip(fig.axes, panels.items(), strict=True):
        marks, *shade = more or [{}]
        axis.plot(t, x, color="0.25" if shade else "0.65", linewidth=1)
        if highlight is not None:
            axis.lines[highlight].set(color=BLUE, linewidth=2.5, zorder=3)
        if marks:
            axis.plot(*zip(*list(marks.values())[:2], strict=True), "--", color=RED, linewidth=2, zorder=4)
        look = {"color": RED, "markeredgecolor": "white", "clip_on": False, "zorder": 5}
        for marker, place in marks.items():
            axis.plot(*place, marker, markersize=18 if marker == "*" else 8, **look)
        axis.set(xlim=(t.max().item(), 0), title=title, xlabel=xlabel, ylabel=ylabel)
        if shade:
            places, density = shade
            density = density / density.amax(0).clamp(min=1e-12)
            axis.contourf(t, places, density, levels=8, cmap="Greys", vmin=0, vmax=2.4)
            axis.grid(False)
    return fig


@style.picture
def dashboard(
    panels: Mapping[str, tuple[style.Lines, str, str]], images: Tensor | None = None, title: str = ""
) -> style.Figure:
    """A row of small pictures of lines, each with axes of its own, above `images` (B, C, H, W) under a `title`.

    `panels`: {name: (lines {name: (x, y)}, label of x, which axes are logarithmic: "", "x", "y" or "xy")}.
    """
    width, legend = 3.0 * len(panels), 0.35 if any(len(lines) > 1 for lines, _, _ in panels.values()) else 0
    strip = 0 if images is None else (width - 0.2) / len(images)  # its height
    below = legend + (strip + 0.4 if strip else 0)
    height = 2.2 + below
    fig, _ = style.figure((width, height), 1, len(panels), (0.63, 0.12, 0.5, 0.3), below)
    for axis, (name, (lines, xlabel, logarithmic)) in zip(fig.axes, panels.items(), strict=True):
        style.chart(axis, lines, logarithmic, title=name, xlabel=xlabel)
        axis.minorticks_off()  # and few others: they take most of the time
        for scale in (axis.xaxis, axis.yaxis):
            scale.get_major_locator().set_params(**{"numticks" if scale.get_scale() == "log" else "nbins": 4})
    style.legend_below(fig, fig.axes[0])
    if images is not None:
        axis = fig.add_axes((0.1 / width, (legend + 0.05) / height, 1 - 0.2 / width, strip / height))
        style.show_images(axis, images, len(images), title)
    return fig


@style.picture
def shapes(stages: Mapping[str, tuple[int, int, int]], skips: Sequence[tuple[str, str]] = ()) -> style.Figure:
    """Tensors on their way through a network, {name: (C, H, W)} from left to right; arrows join the pairs in `skips`.

    Each is a box as high as its resolution and wider with more channels; lower resolutions stand lower.
    """
    channels, heights, _ = zip(*stages.values(), strict=True)
    low, top = min(heights), max(heights)
    fig, axis = style.figure((0.85 * len(stages) + 0.6, 4.6))
    centered, roofs = {"ha": "center", "fontsize": 9}, {}
    for place, (name, (C, H, W)) in enumerate(stages.items()):
        roof = 2 * (H - top)
        roofs[name] = place, roof + 0.1
        axis.bar(place, H, 0.2 + 0.6 * C / max(channels), bottom=roof - H, color="0.85", edgecolor="0.3")
        told, turned = (f"{C} × {H} × {W}", 90) if H / top > 0.4 else (f"{C} ×\n{H} × {W}", 0)  # upright if it fits
        axis.text(place, roof - H / 2, told, rotation=turned, va="center", **centered)
        axis.text(place, roof - H - 0.4, name.replace("coder.", "c\n", 1), va="top", **centered)
    for start, end in skips:
        bend = -0.6 / (roofs[end][0] - roofs[start][0]) ** 0.6
        arrow = {"arrowstyle": "->", "color": BLUE, "connectionstyle": f"arc3,rad={bend}"}
        axis.annotate("", roofs[end], roofs[start], arrowprops=arrow)
    axis.set(xlim=(-0.6, len(stages) - 0.4), ylim=(low - 2 * top - 3, top / 3 if skips else 1))
    axis.axis("off")
    return fig
