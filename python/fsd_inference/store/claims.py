"""A rank's claim: of all processes that were started for one rank of an attempt, one goes on."""

from __future__ import annotations

from fsd_inference.store.base import Store


def claim(store: Store, run: str, attempt: int, rank: int, token: str) -> bool:
    """Claim a rank of an attempt; return whether this process holds it.

    Services that start workers may start one twice; two of them would compete for one queue. The first to write the
    claim goes on, any other ends at once.

    Parameters
    ----------
    store : Store
        Where the run's objects are.
    run : str
    attempt, rank : int
    token : str
        Names this process, for who looks at the claim.

    Raises
    ------
    StoreError
        It could not be found out; the process must not go on.
    """
    return store.put_if_absent(f"{run}/{attempt}/claims/{rank}", token.encode()) is not None
