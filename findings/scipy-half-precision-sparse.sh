#!/usr/bin/env bash
# SciPy 1.17.1: a half-precision sparse array can be made, saved, loaded and multiplied, but not made dense or sliced.
#
# csr_array takes float16 values with their indices without a warning; save_npz, load_npz, tocsc and products keep them.
# Then toarray and slices of rows raise, each with another sentence, although the same array was just multiplied.
#
# Seen: what is printed. Fails if those two steps work, or the other two do not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import numpy as np
from scipy import sparse

made = sparse.csr_array((np.ones(3, np.float16), [0, 1, 2], [0, 1, 2, 3]), shape=(3, 3))
sparse.save_npz("half.npz", made)
loaded = sparse.load_npz("half.npz")
assert loaded.dtype == np.float16 and loaded.nnz == 3
print("made, saved and loaded:", loaded.dtype)
steps = {
    "tocsc": lambda: loaded.tocsc(),
    "to dense": lambda: loaded.toarray(),
    "times itself": lambda: loaded @ loaded,
    "row 0 to 2": lambda: loaded[:2],
}
failed = set()
for name, step in steps.items():
    try:
        step()
        print(f"{name}: works")
    except Exception as error:
        failed.add(name)
        print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:90]}")
assert failed == {"to dense", "row 0 to 2"}, failed
PYTHON
