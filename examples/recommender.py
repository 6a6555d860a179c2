"""A recommender with 65,536 sparse inputs, the pages that a user has seen, run by four workers over objects.

Run it with ``python examples/recommender.py``; it starts an emulated AWS on this machine, and needs the extra
``local``: ``pip install 'fsd-inference[local]'``. The data are made up: each user has a few interests, each page and
item belongs to one, and a part of what users do is random. The network knows only what users saw and bought.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from sklearn.utils.extmath import randomized_svd

import fsd_inference as fsd

PAGES, GROUPS, FACTORS, ITEMS = 65_536, 2_048, 512, 4_096  # the widths of the network
INTERESTS, OF_A_USER = 128, 3
SEEN, BOUGHT = 40, 8  # pages and items of a user, of which a part is random
RANDOM = 0.15
USERS, UNSEEN = 8_000, 400  # users to learn from, and users to recommend to
GROUPS_OF_A_PAGE = 4
SPARSITY, CALIBRATING = 0.9, 1_000  # of the layers, and users to calibrate with
WORKERS = 4


def choices(rng: np.random.Generator, interests: NDArray[np.int64], count: int, things: int) -> sparse.csr_array:
    """Return which of some things users chose, users x things of 0 and 1; popular ones of an interest more often."""
    users = len(interests)
    popularity = 1 / np.arange(1, things // INTERESTS + 1)
    rank = rng.choice(popularity.size, (users, count), p=popularity / popularity.sum())
    chosen = rng.choice(OF_A_USER, (users, count))
    found = rank * INTERESTS + np.take_along_axis(interests, chosen, axis=1)
    found = np.where(rng.random((users, count)) < RANDOM, rng.integers(things, size=(users, count)), found)
    rows = np.repeat(np.arange(users), count)
    matrix = sparse.csr_array((np.ones(found.size, np.float32), (rows, found.ravel())), shape=(users, things))
    matrix.data[:] = 1  # what was chosen twice counts once
    return matrix


def page_groups(seen: sparse.csr_array, rng: np.random.Generator) -> sparse.csr_array:
    """Return weights, groups x pages: each page is in a few groups, with pages that the same users saw."""
    _, scale, pages = randomized_svd(seen, INTERESTS, random_state=0)
    factors = (pages.T * scale).astype(np.float32)
    factors /= np.linalg.norm(factors, axis=1, keepdims=True) + 1e-9
    directions = rng.standard_normal((INTERESTS, GROUPS), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    parts = []
    for block in np.array_split(factors, 16):
        near = block @ directions
        best = np.argpartition(near, -GROUPS_OF_A_PAGE, axis=1)[:, -GROUPS_OF_A_PAGE:]
        starts = np.arange(0, best.size + 1, GROUPS_OF_A_PAGE)
        parts.append(sparse.csr_array((np.take_along_axis(near, best, 1).ravel(), best.ravel(), starts), near.shape))
    return sparse.vstack(parts).T.tocsr()


def fitted(seen: sparse.csr_array, bought: sparse.csr_array, rng: np.random.Generator) -> fsd.Network:
    """Fit a network that scores items: groups of pages, then ridge regression on the groups, as two thin layers."""
    weights = page_groups(seen, rng)
    hidden = (seen @ weights.T).toarray()
    ridge = hidden.T @ hidden + np.float32(10) * np.eye(GROUPS, dtype=np.float32)
    scores = linalg.solve(ridge, (bought.T @ hidden).T, assume_a="pos")  # groups x items
    left, scale, right = randomized_svd(scores, FACTORS, n_iter=2, random_state=0)
    layers = [weights, np.sqrt(scale)[:, np.newaxis] * left.T, right.T * np.sqrt(scale)]
    return fsd.Network.from_matrices(layers, activations=["relu", "identity", "identity"], name="recommender")


def best_items(scores: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return the items with the highest scores of each user, the best first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def hits(best: NDArray[np.int64], bought: sparse.csr_array) -> float:
    """Return the fraction of recommended items that the users bought."""
    return float(np.take_along_axis(bought.toarray(), best, axis=1).mean())


def scores_of(network: fsd.Network, seen: sparse.csr_array, channel: str = "serial", workers: int = 1) -> NDArray[Any]:
    """Return the scores of all items, users x items."""
    with fsd.Session(network, channel=channel, workers=workers) as session:
        outputs: Any = session.infer(seen, outputs="dense").outputs
    scores: NDArray[Any] = outputs
    return scores


def main() -> None:
    """Fit a recommender, prune it, and recommend items to users it has not seen, over objects as in one process."""
    rng = np.random.default_rng(0)
    interests = np.argsort(rng.random((USERS + UNSEEN, INTERESTS)), axis=1)[:, :OF_A_USER]
    seen, bought = choices(rng, interests, SEEN, PAGES), choices(rng, interests, BOUGHT, ITEMS)
    network = fitted(seen[:USERS], bought[:USERS], rng)
    pruned = fsd.prune(network, SPARSITY, x=seen[:CALIBRATING])

    users, truth = seen[USERS:], bought[USERS:]
    popular = best_items(bought[:USERS].sum(axis=0)[np.newaxis], 10)
    print(f"most popular: {hits(np.tile(popular, (UNSEEN, 1)), truth):.1%} of ten recommended items were bought")
    for name, one in (("fitted", network), ("pruned", pruned)):
        right = hits(best_items(scores_of(one, users), 10), truth)
        print(f"{name}: {right:.1%} of ten recommended items were bought, {one.connections:,} connections")

    scores = scores_of(pruned, users, "object", WORKERS)
    if scores.tobytes() != scores_of(pruned, users).tobytes():
        raise SystemExit("object: the scores differ from the serial run's")
    print(f"object, {WORKERS} workers: all bits are those of the serial run")
    for user, items in enumerate(best_items(scores[:3], 5)):
        print(f"user {user}: items {', '.join(f'{item}*' if truth[user, item] else f'{item}' for item in items)}")
    print("* was bought")


if __name__ == "__main__":
    main()
