"""A small convolutional network, pruned step by step to a tenth of its weights and run by three workers.

Run it with ``python examples/cnn_pruned.py [--stack STACK] [PLOT]``; the plot goes into PLOT, or ``cnn_pruned.png``. It
needs PyTorch and the extras ``local`` and ``report``: ``pip install 'fsd-inference[torch,local,report]'``. Without a
stack the workers are local processes, which exchange activations over the queues of an emulated AWS on this machine.
With the ``stack.json`` of a stack with functions, the network is pushed to it and the workers are Lambda functions.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.utils import prune

import fsd_inference as fsd

KEPT = (1.0, 0.5, 0.25, 0.1)  # shares of the weights that each step of pruning keeps
EPOCHS = 8  # of training, and of fine-tuning after each step
WORKERS = 3


def digits_cnn() -> nn.Sequential:
    """Return a network for images of 8 x 8 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(128, 10), nn.Softmax(1),
    )  # fmt: skip


def train(module: nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> None:
    """Train a classifier for some epochs."""
    scores = module[:-1]  # the loss takes what softmax is applied to
    optimizer = torch.optim.Adam(scores.parameters(), 1e-2)
    scores.train()
    for _ in range(EPOCHS):
        for part in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(scores(x[part]), y[part]).backward()
            optimizer.step()
    module.eval()


def prune_to(module: nn.Sequential, kept: float) -> None:
    """Set all but the largest weights of each layer after the first, which has few, to zero and keep them there."""
    for layer in module[1:]:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if prune.is_pruned(layer):
                prune.remove(layer, "weight")  # a new mask replaces the last one
            prune.l1_unstructured(layer, "weight", 1 - kept)


def run(network: fsd.Network, x: NDArray[np.float32], y: NDArray[np.int64], stack: Path | None) -> None:
    """Classify samples with several workers, and compare their accuracy and bits with those of the serial run."""
    with fsd.Session(network) as session:
        expected: Any = session.infer(x, outputs="dense").outputs
    if stack is not None:
        fsd.push(network, stack=stack, workers=WORKERS)
    with fsd.Session(network, channel="queue", workers=WORKERS, stack=stack) as session:
        answer = session.infer(x, outputs="dense")
    outputs: Any = answer.outputs
    if outputs.tobytes() != expected.tobytes():
        raise SystemExit("queue: the outputs differ from the serial run's")
    right = (outputs.argmax(1) == y).mean()
    invocations = answer.report.usage.requests["lambda.invoke"]
    print(f"{WORKERS} workers, {invocations} invocations of functions: {right:.1%} of {len(y)} digits are right")
    print("all bits are those of the serial run")


def main(plot: Path, stack: Path | None) -> None:
    """Train, prune, import and run the network, and compare the accuracy at each step."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # several would wait for each other: the layers are small
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.float32) / 16
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=360, random_state=0)
    module = digits_cnn()
    sizes: dict[str, list[int]] = {}
    for kept in KEPT:
        if kept < 1:
            prune_to(module, kept)
        train(module, torch.as_tensor(train_x), torch.as_tensor(train_y))
        with torch.no_grad():
            accuracy = float((module(torch.as_tensor(test_x)).argmax(1).numpy() == test_y).mean())
        network = fsd.Network.from_torch(module, torch.zeros(2, 1, 8, 8), name="digits")
        sizes[f"{kept:.0%} of the weights: {accuracy:.1%} right"] = [layer.connections for layer in network]
        print(f"{kept:.0%} of the weights, {network.connections:,} connections: {accuracy:.1%} are right")

    print(f"the network {fsd.check(network, module, test_x)}")
    run(network, test_x.reshape(len(test_x), -1), test_y, stack)
    draw(sizes, plot)
    print(f"plot: {plot}")


def draw(sizes: dict[str, list[int]], plot: Path) -> None:
    """Draw the connections of each layer, by what they are called."""
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of what draws

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    width = 0.8 / len(sizes)
    for number, (label, connections) in enumerate(sizes.items()):
        axes.bar([layer + number * width for layer in range(len(connections))], connections, width, label=label)
    axes.set(xlabel="layer", ylabel="connections", xticks=range(len(connections)))
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")
    figure.savefig(plot, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stack", type=Path, help="the stack.json of a stack with functions, which become the workers")
    parser.add_argument("plot", type=Path, nargs="?", default="cnn_pruned.png", help="default: %(default)s")
    main(**vars(parser.parse_args()))
