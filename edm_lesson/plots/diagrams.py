"""Pictures of what has no axis of its own: score fields, clouds of points, paths, designs, the shape of a network."""

import torch
from matplotlib.ticker import NullLocator

from edm_lesson.plots.style import COLORS, blank, draw_lines, figure, set_logarithmic, show_images


def field(places, arrows, likelihood, points, weights, x, answer, title=""):
    """Images of two pixels as points of a plane: which way arrows lead, and what a denoiser makes of one image.

    `places` (K, 2), `arrows` (K, 2), drawn at equal length; `likelihood` (n, n) over [-2, 2] x [-2, 2], shaded;
    `points` (N, 2), drawn larger the larger their `weights` (N,); `x` (2,) and the `answer` (2,) to it.
    """
    with figure(size=(5.2, 5.5)) as (fig, axes):
        axis = axes[0, 0]
        extent = (-2, 2, -2, 2)
        shade = {"cmap": "Greys", "vmin": 0, "vmax": 2 * likelihood.max(), "extent": extent, "origin": "lower"}
        axis.imshow(likelihood.T.numpy(), **shade)
        length = arrows.norm(dim=1, keepdim=True).clamp(min=1e-12)
        unit = {"scale": 24, "width": 0.0035, "color": "0.35", "pivot": "mid"}
        axis.quiver(*places.T, *(arrows / length).T, **unit)
        axis.scatter(
            *points.T, s=25 + 400 * weights, color=COLORS[0], edgecolor="white", label="clean images y", zorder=3
        )
        axis.plot(*torch.stack([x, answer]).T, "--", color=COLORS[1], zorder=4)
        axis.plot(*x[:, None], "X", color=COLORS[1], markersize=11, markeredgecolor="white", label="x", zorder=5)
        axis.plot(
            *answer[:, None], "*", color=COLORS[1], markersize=15, markeredgecolor="white", label="D(x; σ)", zorder=5
        )
        axis.set_xlim(-2, 2)
        axis.set_ylim(-2, 2)
        axis.set_aspect("equal")
        axis.grid(False)
        axis.set_xlabel("left pixel (−1 black, 1 white)")
        axis.set_ylabel("right pixel")
        axis.set_title(title)
        legend = fig.legend(loc="outside lower center", ncols=3, frameon=False)
        legend.legend_handles[0].set_sizes([60])
        return fig


def clouds(groups, limit=1.5, size=2.7):
    """Images of two pixels as points of a plane: {title: points (N, 2)} side by side, from -`limit` to `limit`."""
    with figure(1, len(groups), (len(groups) * size, size + 0.5), sharex=True, sharey=True) as (fig, axes):
        for axis, (title, points) in zip(axes[0], groups.items(), strict=True):
            axis.plot(*points.T, ".", color="black", markersize=2, alpha=0.4)
            axis.set_title(title)
            axis.set_xlim(-limit, limit)
            axis.set_ylim(-limit, limit)
            axis.set_xticks([-1, 0, 1])
            axis.set_yticks([-1, 0, 1])
            axis.set_aspect("equal")
            axis.set_xlabel("left pixel")
        axes[0, 0].set_ylabel("right pixel")
        return fig


def paths(panels, highlight=None, tangent=None):
    """Solutions x(t) side by side, {title: (t (T,), x (T, B), label of t, label of x)}; t falls from left to right.

    Path number `highlight` is drawn bold; `tangent`, ((t, x) at its start, (t, x) at its end), is dashed.
    """
    size = (3.4 * len(panels), 3.2) if len(panels) > 1 else (7, 3.4)
    with figure(1, len(panels), size) as (fig, axes):
        for axis, (title, (t, x, xlabel, ylabel)) in zip(axes[0], panels.items(), strict=True):
            for number, line in enumerate(x.T):
                bold = number == highlight
                axis.plot(t, line, color=COLORS[0] if bold else "0.65", linewidth=2.5 if bold else 1, zorder=2 + bold)
            axis.set_xlim(max(t), min(t))
            axis.set_title(title)
            axis.set_xlabel(xlabel)
            axis.set_ylabel(ylabel)
        if tangent is not None:
            start, end = tangent
            axes[0, 0].plot(*zip(start, end, strict=True), "--", color=COLORS[1], linewidth=2, zorder=4)
            axes[0, 0].plot(*start, "o", color=COLORS[1], markersize=7, clip_on=False, zorder=5)
            axes[0, 0].plot(*end, "*", color=COLORS[1], markersize=16, clip_on=False, zorder=5)
        return fig


def flows(panels, highlight):
    """Solutions x(t) over the density that they carry, {title: (t (T,), x (T, B), grid (G,), density (G, T), step, D)}.

    t falls from left to right, density (grey) is drawn relative to its largest value at each t. Path number
    `highlight` is bold; `step`, ((t, x) at its start, (t, x) at its end), is dashed; the star at t = 0 is `D`.
    """
    with figure(1, len(panels), (3.2 * len(panels), 3.4)) as (fig, axes):
        for axis, (title, (t, x, grid, density, step, D)) in zip(axes[0], panels.items(), strict=True):
            shade = density / density.amax(0).clamp(min=1e-12)
            axis.contourf(t, grid, shade, levels=8, cmap="Greys", vmin=0, vmax=2.4)
            for number, line in enumerate(x.T):
                bold = number == highlight
                axis.plot(t, line, color=COLORS[0] if bold else "0.25", linewidth=2.5 if bold else 0.8, zorder=2 + bold)
            (start, end), shown = step, {"color": COLORS[1], "clip_on": False}
            axis.plot(*zip(start, end, strict=True), "--", linewidth=2, zorder=4, **shown)
            axis.plot(*start, "o", markersize=7, zorder=5, **shown)
            axis.plot(*end, "s", markersize=7, zorder=5, **shown)
            axis.plot(0, D, "*", markersize=15, markeredgecolor="white", zorder=6, **shown)
            axis.set_xlim(max(t), 0)
            axis.set_ylim(min(grid), max(grid))
            axis.grid(False)
            axis.set_title(title)
            axis.set_xlabel("time t")
        axes[0, 0].set_ylabel("pixel x")
        return fig


def dashboard(panels, images=None, title=""):
    """Small pictures of lines, each with axes of its own, above a row of `images` (B, C, H, W) under a `title`.

    `panels`, three to a row: {name: (lines {name: (x, y)}, label of x, logarithmic axes: "", "x", "y" or "xy")}. Lines
    of up to 40 points are marked at every one.
    """
    names = list(dict.fromkeys(name for lines, _, _ in panels.values() for name in lines))
    below = (8.8 / len(images) + 0.4 if images is not None else 0) + (0.35 if len(names) > 1 else 0)  # inches
    height = 2.2 * -(-len(panels) // 3) + below
    with blank((9, height)) as fig:  # everything has its place: to have a layout found takes a third of the time
        for place, (name, (lines, xlabel, logarithmic)) in enumerate(panels.items()):
            row, column = divmod(place, 3)
            axis = fig.add_axes((column / 3 + 0.07, 1 - (2.2 * row + 1.7) / height, 0.25, 1.4 / height))
            draw_lines(axis, lines)
            for line in axis.lines:
                if len(line.get_xdata()) <= 40:
                    line.set(markevery=1, markersize=3)
            axis.set_title(name)
            axis.set_xlabel(xlabel)
            set_logarithmic(axis, logarithmic)
            for scale in (axis.xaxis, axis.yaxis):  # few marks: they take most of the time
                few = {"numticks": 4} if scale.get_scale() == "log" else {"nbins": 4}
                scale.get_major_locator().set_params(**few)
                scale.set_minor_locator(NullLocator())
        if len(names) > 1:
            fig.legend(*fig.axes[0].get_legend_handles_labels(), loc="lower center", ncols=len(names), frameon=False)
        if images is not None:
            size = 8.8 / len(images)
            axis = fig.add_axes((0.1 / 9, (below - 0.35 - size) / height, 8.8 / 9, size / height))
            show_images(axis, images, len(images), title)
        return fig


def shapes(stages, skips=()):
    """Tensors on their way through a network, {name: (C, H, W)} from left to right; arrows join the pairs in `skips`.

    Each is a box as high as its resolution and wider with more channels; lower resolutions stand lower.
    """
    names, most = list(stages), max(shape[0] for shape in stages.values())
    top, low = max(shape[1] for shape in stages.values()), min(shape[1] for shape in stages.values())
    roofs = {name: 2 * (shape[1] - top) for name, shape in stages.items()}
    with figure(size=(0.85 * len(stages) + 0.6, 4.6)) as (fig, axes):
        axis, centred = axes[0, 0], {"ha": "center", "va": "center", "fontsize": 9}
        for place, (name, (C, H, W)) in enumerate(stages.items()):
            axis.bar(place, H, 0.2 + 0.6 * C / most, bottom=roofs[name] - H, color="0.85", edgecolor="0.3")
            across = H / top < 0.4  # too low for an upright line of text
            told = f"{C} ×\n{H} × {W}" if across else f"{C} × {H} × {W}"
            axis.text(place, roofs[name] - H / 2, told, rotation=0 if across else 90, **centred)
            short = name.replace("coder.", "c\n", 1)
            axis.text(place, roofs[name] - H - 0.4, short, ha="center", va="top", fontsize=9)
        for start, end in skips:
            (x0, y0), (x1, y1) = [(names.index(name), roofs[name] + 0.1) for name in (start, end)]
            arrow = {"arrowstyle": "->", "color": COLORS[0], "connectionstyle": f"arc3,rad={-0.6 / (x1 - x0) ** 0.6}"}
            axis.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
        axis.set_xlim(-0.6, len(stages) - 0.4)
        axis.set_ylim(low - 2 * top - 3, top / 3 if skips else 1)
        axis.axis("off")
        return fig
