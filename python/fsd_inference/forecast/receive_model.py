"""A model of the number of requests needed to receive: polls of a queue, and reads of objects that do not exist yet."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReceiveModel:
    """Request counts that depend on arrival times, as formulas fitted to measured runs.

    The defaults are those of local processes against the emulator. They were fitted on runs of RadiX-Net (1024
    neurons, 24 layers, 400 inputs) and of random networks (256 and 384 neurons) on 2 to 7 workers, with and without
    micro-batches. AWS has other latencies: for AWS, fit them on reports of runs there.

    Attributes
    ----------
    polls, polls_sources : float
        Over `queue`, a rank that receives frames from s sources before a layer makes
        polls * (1 - exp(-s / polls_sources)) polls: frames that arrive together are received by one poll.
    polls_a_mb : float
        Additional polls for each MB that all ranks exchange before the layer: large transfers spread arrivals out, as
        the emulator carries one frame after the other.
    messages_a_poll : float
        Average messages of a poll that finds many (SQS returns at most 10). This sets a lower bound on the polls, which
        applies where micro-batches multiply the messages.
    misses, misses_log : float
        Over `object`, the rank makes misses + misses_log * ln(s) reads of objects that do not exist yet, with or
        without micro-batches.
    start_s : float
        Seconds between the starts of consecutive ranks; the earlier ranks wait for the last one.
    looks_a_second : float
        Reads per second, for objects and for an abort, of a rank that waits for the others to start.
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
        """Return the number of polls by which a rank receives its messages before a layer.

        Parameters
        ----------
        sources : int
            Number of ranks from which it receives.
        messages : float
            Number of messages that it receives.
        layer_mb : float
            MB (10^6 bytes) that all ranks exchange before the layer.
        """
        together = self.polls * (1 - math.exp(-sources / self.polls_sources))
        expected = min(messages, together + self.polls_a_mb * layer_mb)
        return max(expected, messages / self.messages_a_poll)

    def misses_before(self, sources: int) -> float:
        """Return the number of reads that miss while a rank waits for the objects of `sources` ranks before a layer."""
        return self.misses + self.misses_log * math.log(sources)

    def waiting_s(self, workers: int) -> float:
        """Return the seconds for which ranks wait until the last one has started, summed over the ranks."""
        return self.start_s * workers * (workers - 1) / 2
