"""How many requests it takes to receive: polls of a queue, and reads of objects that are not there yet."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReceiveModel:
    """Request counts that depend on when frames arrive, as functions fitted to measured runs.

    The defaults are those of local processes against the emulator: they were fitted on runs of RadiX-Net (1024
    neurons, 24 layers, 400 inputs) and of random networks (256 and 384 neurons) on 2 to 7 workers, with and without
    micro-batches. Latency on AWS is another: fit them on reports of runs there.

    Attributes
    ----------
    polls, polls_sources : float
        A rank that gets frames from s sources before a layer polls polls (1 - exp(-s / polls_sources)) times for them:
        frames that come together are found by one poll.
    polls_a_mb : float
        So many times more for each MB that all ranks exchange before the layer: what takes time to carry comes apart.
        The emulator carries one frame after the other.
    messages_a_poll : float
        The most that a poll finds, on average; 10 is what SQS gives at most. With micro-batches there are more messages
        than the above would find.
    misses, misses_log : float
        Over `object` it looks misses + misses_log ln s times for what is not there yet, micro-batches or not.
    start_s : float
        Seconds from the start of one rank to that of the next: those that are there wait for the last one.
    looks_a_second : float
        How often a rank that waits so looks for objects and for an abort.
    """

    polls: float = 1.45
    polls_sources: float = 0.95
    polls_a_mb: float = 0.2
    messages_a_poll: float = 7.0
    misses: float = 0.6
    misses_log: float = 0.4
    start_s: float = 0.65
    looks_a_second: float = 3.0

    def polls_before(self, sources: int, messages: float, layer_mb: float) -> float:
        """Return how often a rank polls for the messages of a layer, before which all ranks exchange `layer_mb`."""
        together = self.polls * (1 - math.exp(-sources / self.polls_sources))
        expected = min(messages, together + self.polls_a_mb * layer_mb)
        return max(expected, messages / self.messages_a_poll)

    def misses_before(self, sources: int) -> float:
        """Return how often a rank looks in vain for the objects of a layer."""
        return self.misses + self.misses_log * math.log(sources)

    def waiting_s(self, workers: int) -> float:
        """Return the seconds, summed over the ranks, until the last one has started."""
        return self.start_s * workers * (workers - 1) / 2
