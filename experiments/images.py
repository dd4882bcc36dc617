"""Images for `classification`: IDX files from a folder, and a figure of what a network gets wrong."""

from pathlib import Path

import numpy as np

from experiments.report import BLUE, GREY, ORANGE, Report, canvas
from jaxmlp.data import read_idx

Data = tuple[np.ndarray, np.ndarray]


def load(folder: Path) -> tuple[Data, Data]:
    """Read training and test images and labels; images to zero mean and unit variance by the training ones."""

    def find(pattern: str) -> np.ndarray:
        paths = sorted(folder.glob(pattern))
        if not paths:
            raise SystemExit(
                f"{folder} must hold a file {pattern}; --data names a folder of IDX files, plain or gzipped"
            )
        return read_idx(paths[0])

    parts = [(find(f"{part}-images*"), find(f"{part}-labels*")) for part in ("train", "t10k")]
    mean, std = parts[0][0].mean(), parts[0][0].std()
    train, test = (
        (((images.reshape(len(images), -1) - mean) / std).astype("f"), labels.astype("i4")) for images, labels in parts
    )
    return train, test


def draw(
    report: Report, curves: dict[str, np.ndarray], outputs: np.ndarray, images: np.ndarray, labels: np.ndarray
) -> None:
    """Draw the accuracy by epoch with its spread, and the images that the network is surest about and wrong."""
    figure, (left, right) = canvas(2, width=4.6)
    for (name, curve), colour in zip(curves.items(), (GREY, BLUE) if len(curves) > 1 else (BLUE,), strict=True):
        epochs = np.arange(1, curve.shape[1] + 1)
        left.plot(epochs, curve.mean(0), color=colour, label=f"{name}: {curve[:, -1].mean():.2%}")
        left.fill_between(epochs, curve.min(0), curve.max(0), color=colour, alpha=0.25, linewidth=0)
    top, low = max(curve.max() for curve in curves.values()), min(curve[:, -1].mean() for curve in curves.values())
    left.set(
        title="Test accuracy, mean and range of the seeds",
        xlabel="epoch",
        ylim=(min(low, 0.98 * top) - 0.01, top + 0.005),
    )
    left.legend(loc="lower right")
    probabilities = np.exp(outputs - outputs.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    guess = probabilities.argmax(1)
    wrong = np.flatnonzero(guess != labels)
    wrong = wrong[np.argsort(-probabilities[wrong, guess[wrong]])][:12]
    side = round(images[0].size ** 0.5)
    right.set(title="Surest and wrong: label, then guess")
    right.axis("off")
    for i, row in enumerate(wrong):
        inset = right.inset_axes((i % 4 / 4, 0.7 - i // 4 * 0.34, 0.2, 0.22))
        inset.imshow(images[row].reshape(side, side), cmap="gray_r")
        inset.set_title(f"{labels[row]}, {guess[row]}", fontsize="small", color=ORANGE)
        inset.axis("off")
    report.figure(figure)
