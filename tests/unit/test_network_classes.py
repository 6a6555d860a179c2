"""Classes of samples, read from files, and the accuracy of predictions beside them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network import accuracy, load_classes, save_labels

OUTPUTS = np.array([[3, 1, 2], [0, 0, 0], [-1, -2, -0.5], [0, 4, 4]], np.float32)  # largest: 0, 0, 2, 1


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (np.array([0, 0, 2, 1]), None),
        (np.array([0.0, 0.0, 2.0, 1.0]), None),
        (np.array(["0", "0.0", "2", "1"]), None),
        (np.array([7, 7, 9, 8]), np.array([7, 8, 9])),
        (np.array(["7", "7", "9", "8"]), np.array([7, 8, 9])),
        (np.array([7, 7, 9, 8], np.uint8), ["7", "8", "9"]),
        (np.array(["a", "a", "c", "b"]), np.array(["a", "b", "c"])),
        (np.array([0.5, 0.5, 2.5, 1.5]), np.array([0.5, 1.5, 2.5])),
    ],
)
def test_accuracy(classes: Any, labels: Any) -> None:
    for outputs in (OUTPUTS, sparse.csr_array(OUTPUTS)):
        assert accuracy(outputs, classes, labels) == 1
        assert accuracy(outputs, classes[[2, 1, 2, 3]], labels) == 0.75


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (np.array([0, 0, 3, 1]), "'3' is no class of the network, which has \\['0', '1', '2'\\]"),
        (np.array([0, 0, 0.5, 1]), "'0.5' is no class"),
        (np.array([0, 0, np.nan, 1]), "'nan' is no class"),
        (np.array(["0", "dog", "1", "1"]), "'dog' is no class"),
        (np.array([0, 1, 2]), "4 samples need as many classes, not 3"),
    ],
)
def test_wrong_classes(classes: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        accuracy(OUTPUTS, classes)


def test_classes_are_read_from_each_format(tmp_path: Path) -> None:
    numbers = np.array([3, 0, 12], np.int32)
    for name in ("y.npz", "y.npy", "y.csv"):  # as `fsd infer --argmax` writes them
        save_labels(tmp_path / name, numbers)
        assert load_classes(tmp_path / name).astype(int).tolist() == [3, 0, 12]
    np.save(tmp_path / "names.npy", np.array(["ant", "bee"]))
    assert load_classes(tmp_path / "names.npy").tolist() == ["ant", "bee"]
    (tmp_path / "y.txt.gz").write_bytes(gzip.compress(b"ant\n\n  brown bee \n"))
    assert load_classes(tmp_path / "y.txt.gz").tolist() == ["ant", "brown bee"]


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="absent cannot be read"):
        load_classes(tmp_path / "absent")
    np.savez(tmp_path / "y.npz", y=np.arange(3))
    with pytest.raises(FileFormatError, match="has no array 'labels'"):
        load_classes(tmp_path / "y.npz")
    np.save(tmp_path / "y.npy", np.ones((2, 2)))
    with pytest.raises(FileFormatError, match="float64 values of shape \\(2, 2\\)"):
        load_classes(tmp_path / "y.npy")
    np.save(tmp_path / "y.npy", np.array([b"ant"]))
    with pytest.raises(FileFormatError, match="must hold one number or string per sample"):
        load_classes(tmp_path / "y.npy")
