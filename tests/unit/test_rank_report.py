"""A rank's report: its counts include its own writing."""

from __future__ import annotations

import json

import pytest

from fsd_inference.engine.rank import _put_counted
from fsd_inference.records import Usage, UsageMeter
from fsd_inference.store.memory import MemoryStore


class Repeating(MemoryStore):
    """Writes that took so many requests each, the last number for ever."""

    def __init__(self, *requests: int) -> None:
        super().__init__()
        self._requests = list(requests)
        self.counted = UsageMeter()

    def put(self, key: str, data: bytes) -> str:
        for repeat in range(self._requests.pop(0) if len(self._requests) > 1 else self._requests[0]):
            self.counted.request("s3.put", retry=repeat > 0)
        return super().put(key, data)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("requests", [(1,), (3, 1), (1, 2, 1), (2, 2, 3, 1)])
@pytest.mark.parametrize("foreseen", [1, 2])
def test_a_report_counts_its_own_writing_however_often_requests_are_repeated(
    requests: tuple[int, ...], foreseen: int
) -> None:
    store = Repeating(*requests)
    one_write = UsageMeter()
    for repeat in range(foreseen):
        one_write.request("s3.put", retry=repeat > 0)
    _put_counted(store, "report", {"rank": 3}, store.counted.snapshot, one_write.snapshot())
    report = json.loads(store.get("report") or b"")
    assert report["rank"] == 3
    assert Usage.from_json(report["usage"]) == store.counted.snapshot()
