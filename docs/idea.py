"""Draw the idea in one picture, docs/idea.png, for the README.

    python docs/idea.py

From left to right: a description, one network, a population, its blocks on device slots, and what stops make of them.
Below: the rounds of the host's loop. On a card of its own, so that it is legible on light and dark pages.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

PICTURE = Path(__file__).with_suffix(".png")
WIDTH, HEIGHT = 12.0, 6.2
PAPER, INK, GREY, LINE, PANEL = "#fbfaf7", "#1f2733", "#667080", "#c9ced6", "#ffffff"
RATES = ("#9cc5e8", "#5b9bd5", "#2864b4", "#173f7a")  # a colour for each learning rate
ORANGE, RED, GREEN = "#e07b1a", "#c0392b", "#2e8b57"
RNG = np.random.default_rng(3)
SETTINGS = RNG.permutation(np.repeat(np.arange(4), 4))
STOPPED, DIVERGED = {0, 2, 3, 5, 6, 9, 10, 11, 14}, {13}


def main() -> None:
    """Draw and save the picture."""
    matplotlib.rcParams |= {"font.family": "DejaVu Sans", "font.size": 11.5, "text.color": INK}
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT), aspect="equal")
    axes.axis("off")
    box(axes, 0.06, 0.06, WIDTH - 0.12, HEIGHT - 0.12, face=PAPER, edge=LINE, radius=0.18)
    lefts, widths = (0.3, 2.8, 5.1, 7.15, 9.6), (2.1, 1.55, 1.6, 2.0, 2.05)
    for draw, left, width in zip((description, network, population, blocks, room), lefts, widths, strict=True):
        draw(axes, left, width)
    for i in range(4):
        arrow(axes, lefts[i] + widths[i] + 0.08, lefts[i + 1] - (0.38 if i == 1 else 0.08), 4.55)
    rounds(axes)
    figure.savefig(PICTURE, transparent=True)


def description(axes: Axes, left: float, width: float) -> None:
    """A card with a recipe on it."""
    title(axes, left, width, "a recipe", "static, hashable,", "without arrays")
    box(axes, left, 3.75, width, 1.6, face=PANEL, edge=INK)
    lines = ("MLP (8, 64, 64, 1)", "loss", "optimizer", "epochs, batch size")
    for i, line in enumerate(lines):
        axes.text(left + 0.13, 5.08 - 0.34 * i, line, family="DejaVu Sans Mono", fontsize=9.9, va="center")


def network(axes: Axes, left: float, width: float) -> None:
    """The dots and lines of a perceptron."""
    title(axes, left, width, "one network", "its parameters:", "a pytree of arrays")
    columns = [(left + 0.15 + i * (width - 0.3) / 3, count) for i, count in enumerate((3, 4, 4, 1))]
    places = [[(x, 4.55 + 0.4 * (j - (count - 1) / 2)) for j in range(count)] for x, count in columns]
    for before, after in zip(places, places[1:], strict=False):
        for x, y in before:
            for u, v in after:
                axes.plot([x, u], [y, v], color=LINE, linewidth=0.9, zorder=1)
    for column in places:
        for place in column:
            axes.add_patch(Circle(place, 0.095, facecolor=RATES[2], edgecolor="white", linewidth=1, zorder=2))


def population(axes: Axes, left: float, width: float) -> None:
    """A grid of members: seeds across, learning rates down."""
    title(axes, left, width, "a population", "its members: each with a", "key and numbers of its own")
    step = width / 4
    for row in range(4):
        for column in range(4):
            member(axes, left + step * (column + 0.5), 5.15 - 0.4 * row, RATES[row])
    axes.text(left + width / 2, 5.5, "seeds", ha="center", fontsize=10.8, color=GREY)
    axes.text(left - 0.06, 4.55, "learning rates", rotation=90, ha="center", va="center", fontsize=10.8, color=GREY)


def blocks(axes: Axes, left: float, width: float) -> None:
    """Two devices with two blocks of four slots each."""
    title(axes, left, width, "blocks in slots", "a block trains under one", "vmap, block after block")
    devices(axes, left, width, lambda place: (RATES[SETTINGS[place]], ""))


def room(axes: Axes, left: float, width: float) -> None:
    """The same devices, when some have stopped: those who go on fill the first blocks."""
    title(axes, left, width, "stops make room", "survivors move up, and", "empty blocks are not run")
    going = [i for i in range(16) if i not in STOPPED | DIVERGED]
    ended = [i for i in range(16) if i in STOPPED | DIVERGED]
    seats: dict[int, int] = {}
    for device in (0, 1):
        mine = [i for i in going if i % 2 == device] + [i for i in ended if i % 2 == device]
        seats |= {place * 2 + device: i for place, i in enumerate(mine)}

    def look(place: int) -> tuple[str, str]:
        i = seats[place]
        return (
            (RATES[SETTINGS[i]], "") if i in going else (RED if i in DIVERGED else GREY, "x" if i in DIVERGED else "o")
        )

    devices(axes, left, width, look)


def devices(axes: Axes, left: float, width: float, look: Callable[[int], tuple[str, str]]) -> None:
    """Draw two devices; `look` gives colour and kind of the member in a slot."""
    half = width / 2
    for device in (0, 1):
        x = left + device * (half + 0.04)
        box(axes, x, 3.72, half - 0.04, 1.66, face=PANEL, edge=INK)
        axes.text(x + half / 2 - 0.02, 5.5, f"device {device}", ha="center", fontsize=10.8, color=GREY)
        for block in (0, 1):
            low = 4.6 - 0.8 * block
            shown = [look((block * 4 + slot) * 2 + device) for slot in range(4)]
            alive = any(kind == "" for _, kind in shown)
            edge = ORANGE if alive else LINE
            box(
                axes,
                x + 0.08,
                low,
                half - 0.2,
                0.7,
                face="#fff6ea" if alive else PANEL,
                edge=edge,
                style="-" if alive else "--",
            )
            for slot, (colour, kind) in enumerate(shown):
                u = x + half / 2 - 0.02 + (0.2 if slot % 2 else -0.2)
                member(axes, u, low + (0.52 if slot < 2 else 0.18), colour, kind)


def rounds(axes: Axes) -> None:
    """The host's loop: a chunk on the devices, then a look; checkpoints, a kill, and a resume."""
    top, low = 2.3, 1.55
    axes.text(0.3, top + 0.23, "rounds of the loop", fontsize=13.5, weight="bold", va="center")
    axes.text(
        2.75,
        top + 0.23,
        "the devices train a chunk of epochs, then the host takes a look",
        fontsize=11.2,
        color=GREY,
        va="center",
    )
    lefts = np.array([0.3, 2.35, 4.4, 7.75, 9.8])
    for i, x in enumerate(lefts):
        box(axes, x, low, 1.35, 0.62, face=RATES[2], edge=RATES[2])
        axes.text(
            x + 0.675,
            low + 0.31,
            ("chunk 1", "chunk 2", "chunk 3", "chunk 3", "chunk 4")[i],
            color="white",
            ha="center",
            va="center",
            fontsize=11.2,
        )
        if i == 2:  # killed within
            axes.plot([x + 1.0, x + 1.24], [low - 0.14, low + 0.76], color=PAPER, linewidth=7, zorder=4)
            axes.text(x + 1.5, low + 0.31, "killed", color=RED, fontsize=11.5, weight="bold", va="center")
            continue
        mark(axes, x + 1.66, low + 0.31)
    arrow(axes, 6.72, 7.62, low + 0.31, colour=GREEN)
    axes.text(7.17, low + 0.5, "resume", color=GREEN, ha="center", fontsize=11.2, weight="bold")
    box(axes, 0.3, 0.32, WIDTH - 0.6, 0.84, face=PANEL, edge=LINE)
    mark(axes, 0.66, 0.74)
    axes.text(
        0.95,
        0.74,
        "a look: stop rules, callbacks,\nprogress and a checkpoint",
        fontsize=11.2,
        va="center",
        linespacing=1.3,
    )
    for x, colour, kind, words in (
        (4.3, RATES[2], "", "member"),
        (5.75, GREY, "o", "stopped early"),
        (7.75, RED, "x", "diverged"),
    ):
        member(axes, x, 0.74, colour, kind)
        axes.text(x + 0.22, 0.74, words, fontsize=11.2, va="center")
    axes.text(
        11.5,
        0.74,
        "killed and resumed:\nthe same bits",
        fontsize=11.2,
        va="center",
        ha="right",
        color=GREEN,
        weight="bold",
        linespacing=1.3,
    )


def member(axes: Axes, x: float, y: float, colour: str, kind: str = "") -> None:
    """Draw a member: full while it trains, hollow when it has stopped, crossed when it has diverged."""
    face = colour if kind == "" else PANEL
    axes.add_patch(Circle((x, y), 0.115, facecolor=face, edgecolor=colour, linewidth=1.4, zorder=3))
    if kind == "x":
        for sign in (-1, 1):
            axes.plot([x - 0.06, x + 0.06], [y - 0.06 * sign, y + 0.06 * sign], color=colour, linewidth=1.6, zorder=4)


def mark(axes: Axes, x: float, y: float) -> None:
    """Draw a look of the host: an orange diamond."""
    axes.plot([x], [y], marker="D", markersize=11, color=ORANGE, markeredgecolor="white", zorder=4)


def title(axes: Axes, left: float, width: float, name: str, *words: str) -> None:
    """Write a panel's name above it, and what it means below it."""
    axes.text(left + width / 2, 5.87, name, ha="center", va="center", fontsize=13.5, weight="bold")
    axes.text(
        left + width / 2, 3.36, "\n".join(words), ha="center", va="center", fontsize=11.2, color=GREY, linespacing=1.3
    )


def arrow(axes: Axes, start: float, end: float, y: float, colour: str = GREY) -> None:
    """Draw an arrow to the right."""
    axes.add_patch(
        FancyArrowPatch((start, y), (end, y), arrowstyle="-|>", mutation_scale=13, color=colour, linewidth=1.6)
    )


def box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    *,
    face: str,
    edge: str,
    radius: float = 0.08,
    style: str = "-",
) -> None:
    """Draw a box with round corners."""
    shape = f"round,pad=0,rounding_size={radius}"
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle=shape, facecolor=face, edgecolor=edge, linewidth=1.2, linestyle=style
        )
    )


if __name__ == "__main__":
    main()
