"""`fsd infer`: outputs, files, and errors for invalid inputs."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from fsd_inference.aws.stack import save_stack
from fsd_inference.config import Clocks, FailurePolicy
from fsd_inference.errors import InputError
from fsd_inference.network import Activation, Layer, Network, random_network, read_categories
from fsd_inference.report import Report
from fsd_inference.session import Session
from fsd_inference.stack_description import FunctionsSpec, StackSpec, WorkerFunction
from tests.support.cli import Fsd, entries, fsd_in
from tests.support.reference import layer_output

FEATURES, SAMPLES = 24, 10
FLAT_KEYS = {
    "wall_s",
    "launch_s",
    "load_s",
    "compute_s",
    "samples_per_s",
    "gedges_per_s",
    "peak_rss_bytes",
    "row_sends",
    "frames",
    "wire_bytes",
    "body_bytes",
    "requests",
    "empty_polls",
    "billed_units",
    "ranks",
}


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network `net` and inputs `x.npz`, in which the commands run."""
    random_network((FEATURES, 30, 20, 16), 5, seed=4).save(tmp_path / "net")
    x = np.random.default_rng(1).random((SAMPLES, FEATURES), np.float32)
    x[x < 0.6] = 0
    x[3] = 0
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_array(x))
    np.save(tmp_path / "x.npy", x)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def oracle(place: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    y: Any = np.load(place / "x.npy").T
    for layer in Network.load(place / "net"):
        y = layer_output(layer, y).astype(np.float32)
    return np.asarray(y.T)


def load(name: str) -> sparse.csr_array:
    return sparse.csr_array(sparse.load_npz(name))


def test_serial_writes_all_files(fsd: Fsd, place: Path) -> None:
    flags = "net x.npz -o out.npz --categories alive.tsv --report run --json"
    said = fsd("infer", *flags.split())
    assert (said.code, said.stderr) == (0, "")
    outputs = sparse.load_npz("out.npz")
    assert outputs.format == "csr"
    assert np.allclose(outputs.toarray(), oracle(place), rtol=1e-5, atol=1e-6)
    alive = np.flatnonzero((outputs.toarray() > 0).any(axis=1)) + 1
    assert read_categories("alive.tsv").tolist() == alive.tolist()
    assert said.json().keys() >= FLAT_KEYS
    assert json.loads(Path("run/report.json").read_text()) == said.json()
    assert entries(place) == {"net", "x.npz", "x.npy", "out.npz", "alive.tsv", "run"}


def test_inputs_of_any_kind_give_the_same_outputs(fsd: Fsd, place: Path) -> None:
    x = sparse.csr_array(np.load("x.npy").astype(np.float16).astype(np.float32))
    sparse.save_npz("float32.npz", x)
    half = x.copy()
    half.data = half.data.astype(np.float16)  # which SciPy saves and loads, but cannot convert
    sparse.save_npz("half.npz", half)
    sparse.save_npz("bsr.npz", x.tobsr(blocksize=(2, 3)))
    sparse.save_npz("dia.npz", sparse.dia_array(x))
    found = x.tocoo()
    lines = zip(found.row + 1, found.col + 1, found.data, strict=True)
    text = "".join(f"{row}\t{column}\t{value}\n" for row, column, value in lines).encode()
    Path("sparse-images-24.tsv").write_bytes(text)
    Path("sparse-images-24.tsv.gz").write_bytes(gzip.compress(text))
    assert fsd("infer", "net", "float32.npz", "-o", "expected.npz").code == 0
    for name in ("half.npz", "bsr.npz", "dia.npz", "sparse-images-24.tsv", "sparse-images-24.tsv.gz"):
        said = fsd("infer", "net", name, "-o", "out.npz")
        assert (said.code, said.stderr) == (0, ""), name
        assert load("out.npz").toarray().tobytes() == load("expected.npz").toarray().tobytes()


def test_people_get_a_summary(fsd: Fsd, place: Path) -> None:
    said = fsd("infer", "net", "x.npy", "-o", "out.npz", "--report", "run")
    assert said.code == 0
    assert f"{SAMPLES} samples x 16 outputs" in said.stdout
    assert "run/report.html" in said.stdout
    assert entries(place / "run") == {"report.json", "report.html", "trace.json"}


def test_a_failed_run_leaves_its_report(fsd: Fsd, place: Path) -> None:
    weights = sparse.csr_array(np.eye(4, dtype=np.float32) * np.float32(1e30))
    Network([Layer(weights, np.zeros(1, np.float32), Activation("relu")) for _ in range(3)]).save("huge")
    np.save("ones.npy", np.ones((2, 4), np.float32))
    flags = "huge ones.npy -o out.npz --channel local --workers 2 --partition block --report run"
    said = fsd("infer", *flags.split())
    assert said.code == 1
    assert "layer 1, neuron" in said.error()
    assert entries(place / "run") == {"report.json", "report.html", "trace.json"}
    report = Report.load("run")
    assert report.error is not None
    assert (report.error["type"], report.error["layer"], len(report.ranks)) == ("NumericError", 1, 2)
    assert "This run failed" in Path("run/report.html").read_text()
    assert not Path("out.npz").exists()


def test_workers_answer_with_the_same_bits(fsd: Fsd, place: Path) -> None:
    assert fsd("infer", "net", "x.npz", "-o", "serial.npz").code == 0
    assert fsd("partition", "net", "--workers", 3, "--method", "random", "-o", "cut").code == 0
    for number, flags in enumerate(("net --workers 3 --partition block --micro-batches 2 --branching 1", "cut")):
        said = fsd("infer", *flags.split(), "x.npz", "-o", f"{number}.npz", "--channel", "local", "--json")
        assert said.code == 0, said.stderr
        assert [rank["starter"] for rank in said.json()["ranks"]][1:] == ([0, 1] if number == 0 else [0, 0])
        ours, serial = load(f"{number}.npz"), load("serial.npz")
        assert ours.indptr.tolist() == serial.indptr.tolist()
        assert ours.indices.tolist() == serial.indices.tolist()
        assert ours.data.tobytes() == serial.data.tobytes()


def _write(name: str, data: bytes) -> Callable[[], None]:
    return lambda: (Path(name).write_bytes(data), None)[1]


def _save(name: str, array: Any) -> Callable[[], None]:
    return lambda: np.save(name, array, allow_pickle=True)


def _with(value: float) -> np.ndarray[Any, Any]:
    x = np.ones((SAMPLES, FEATURES), np.float32)
    x[2, 3] = value
    return x


def _truncate(name: str, by: int = 40) -> Callable[[], None]:
    return lambda: (Path(name).write_bytes(Path(name).read_bytes()[:-by]), None)[1]


def _flip(name: str, at: int = -8) -> Callable[[], None]:
    def damage() -> None:
        content = bytearray(Path(name).read_bytes())
        content[at] ^= 0xFF
        Path(name).write_bytes(content)

    return damage


def _bad_sparse() -> None:
    x = sparse.csr_array(np.ones((2, FEATURES), np.float32))
    x.indices[5] = 1000
    sparse.save_npz("bad.npz", x)


def _empty_batch() -> None:
    sparse.save_npz("bad.npz", sparse.csr_array((0, FEATURES), dtype=np.float32))


GROUP = "net/layers-00000.safetensors"

BAD: dict[str, tuple[Callable[[], object], str, str]] = {
    "inputs missing": (lambda: None, "net bad.npz", "bad.npz"),
    "inputs empty": (_write("bad.npz", b""), "net bad.npz", "bad.npz is empty"),
    "inputs are text": (_write("bad.npz", b"one, two"), "net bad.npz", "bad.npz"),
    "inputs are a directory": (lambda: Path("bad.npz").mkdir(), "net bad.npz", "bad.npz"),
    "inputs truncated": (_truncate("x.npz"), "net x.npz", "x.npz"),
    "inputs corrupt": (_flip("x.npz", 200), "net x.npz", "x.npz"),
    "dense inputs truncated": (_truncate("x.npy"), "net x.npy", "x.npy"),
    "dense inputs cut in the header": (_truncate("x.npy", 128 + 4 * SAMPLES * FEATURES - 20), "net x.npy", "x.npy"),
    "inputs hold NaN": (_save("bad.npy", _with(np.nan)), "net bad.npy", "finite"),
    "inputs hold infinity": (_save("bad.npy", _with(np.inf)), "net bad.npy", "finite"),
    "inputs are complex": (_save("bad.npy", np.ones((2, FEATURES), np.complex64)), "net bad.npy", "complex64"),
    "inputs are strings": (_save("bad.npy", np.full((2, FEATURES), "a")), "net bad.npy", "bad.npy"),
    "inputs are pickled": (_save("bad.npy", np.array([{}, []], object)), "net bad.npy", "bad.npy"),
    "inputs do not fit float32": (_save("bad.npy", np.full((2, FEATURES), 1e300)), "net bad.npy", "float32"),
    "inputs too narrow": (_save("bad.npy", np.ones((2, FEATURES - 1), np.float32)), "net bad.npy", "23 features"),
    "inputs too wide": (_save("bad.npy", np.ones((2, FEATURES + 1), np.float32)), "net bad.npy", "25 features"),
    "inputs have one dimension": (_save("bad.npy", np.ones(FEATURES, np.float32)), "net bad.npy", "2-D"),
    "inputs have three dimensions": (_save("bad.npy", np.ones((2, 3, 4), np.float32)), "net bad.npy", "2-D"),
    "inputs without samples": (_save("bad.npy", np.ones((0, FEATURES), np.float32)), "net bad.npy", "not 0 x"),
    "sparse inputs without samples": (_empty_batch, "net bad.npz", "bad.npz"),
    "sparse inputs that point outside": (_bad_sparse, "net bad.npz", "bad.npz"),
    "network missing": (lambda: None, "nowhere x.npz", "nowhere is not a network"),
    "network is a file": (lambda: None, "x.npy x.npz", "x.npy"),
    "network's manifest truncated": (_truncate("net/network.json"), "net x.npz", "network.json"),
    "network's manifest empty": (_write("net/network.json", b""), "net x.npz", "network.json"),
    "network's manifest of another kind": (_write("net/network.json", b"[]"), "net x.npz", "network.json"),
    "network's layers missing": (lambda: Path(GROUP).unlink(), "net x.npz", "layers-00000"),
    "network's layers truncated": (_truncate(GROUP), "net x.npz", "layers-00000"),
    "network's layers corrupt": (_flip(GROUP), "net x.npz", "layers-00000"),
    "network's layers empty": (_write(GROUP, b""), "net x.npz", "layers-00000"),
    "shards in serial": (lambda: None, "cut x.npz", "serial"),
    "shards for other workers": (lambda: None, "cut x.npz --channel local --workers 3", "2 workers"),
    "shards partitioned again": (lambda: None, "cut x.npz --channel local --partition block", "partitioned already"),
    "shards truncated": (_truncate("cut/rank-00001.safetensors"), "cut x.npz --channel local", "rank-00001"),
    "shard missing": (lambda: Path("cut/rank-00001.safetensors").unlink(), "cut x.npz --channel local", "rank-00001"),
    "plan corrupt": (_flip("cut/plan.safetensors"), "cut x.npz --channel local", "plan.safetensors"),
    "shards' manifest truncated": (_truncate("cut/manifest.json"), "cut x.npz --channel local", "manifest.json"),
    "serial with workers": (lambda: None, "net x.npz --workers 2", "serial"),
    "local with a stack": (lambda: None, "net x.npz --channel local --stack x.npz", "stack"),
    "stack missing": (lambda: None, "net x.npz --channel queue --stack nowhere.json", "nowhere.json"),
    "stack is something else": (lambda: None, "net x.npz --channel queue --stack x.npz", "x.npz"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_code_2(fsd: Fsd, place: Path, case: str) -> None:
    damage, arguments, said = BAD[case]
    if arguments.startswith("cut"):
        assert fsd("partition", "net", "--workers", 2, "--method", "block", "-o", "cut").code == 0
    damage()
    before = entries(place)
    flags = ["-o", "out.npz", "--categories", "alive.tsv", "--report", "run"]
    plain = fsd("infer", *arguments.split(), *flags)
    assert plain.code == 2, plain.stderr
    assert said in plain.error()
    machine = fsd("infer", *arguments.split(), *flags, "--json")
    assert machine.code == 2
    assert machine.json()["error"]["message"] == machine.error()
    assert entries(place) == before
    Path("out.npz").write_text("an older answer")
    assert fsd("infer", *arguments.split(), *flags).code == 2
    assert Path("out.npz").read_text() == "an older answer"


def test_a_failure_at_the_end_leaves_no_file(fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("fsd_inference.network.write_categories", full)
    before = entries(place)
    said = fsd("infer", "net", "x.npz", "-o", "out.npz", "--categories", "alive.tsv")
    assert said.code in {1, 2}
    assert "No space left on device" in said.error()
    assert entries(place) == before


def test_an_answer_that_overflows_names_layer_and_neuron(fsd: Fsd, place: Path) -> None:
    np.save("huge.npy", np.full((2, FEATURES), 3e38, np.float32))
    said = fsd("infer", "net", "huge.npy", "-o", "out.npz", "--json")
    assert said.code == 1
    assert said.json()["error"]["type"] == "NumericError"
    assert said.json()["error"]["layer"] == 0
    assert not Path("out.npz").exists()


def test_an_answer_replaces_an_older_one(fsd: Fsd, place: Path) -> None:
    Path("out.npz").write_text("an older answer")
    assert fsd("infer", "net", "x.npz", "-o", "out.npz").code == 0
    assert sparse.load_npz("out.npz").shape == (SAMPLES, 16)
    shutil.copy("out.npz", "again.npz")
    assert fsd("infer", "net", "x.npz", "-o", "out.npz").code == 0
    assert Path("out.npz").read_bytes() == Path("again.npz").read_bytes()


def test_replicas_share_a_batch(fsd: Fsd, place: Path) -> None:
    fsd("infer", "net", "x.npz", "-o", "alone.npz")
    said = fsd("infer", "net", "x.npz", "-o", "out.npz", "--replicas", "3", "--report", "run", "--json")
    assert (said.code, said.stderr) == (0, "")
    assert Path("out.npz").read_bytes() == Path("alone.npz").read_bytes()
    assert (said.json()["replicas"], [rank["rank"] for rank in said.json()["ranks"]]) == (3, [0, 1, 2])
    told = fsd("report", "run")
    assert "3 over slices of the batch, which took" in told.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--replicas 2 --channel queue", "2 of them cannot be combined with channel 'queue'"),
        ("--replicas 2 --workers 3", "2 of them cannot be combined with 3 workers"),
    ],
)
def test_what_replicas_do_not_go_with_is_one_line(fsd: Fsd, place: Path, flags: str, message: str) -> None:
    said = fsd("infer", *f"net x.npz -o out.npz {flags}".split())
    assert said.code == 2
    assert message in said.error()


def test_predicted_beside_metered(fsd: Fsd, place: Path) -> None:
    said = fsd("infer", "net", "x.npz", "-o", "out.npz", "--replicas", "2", "--predict", "--report", "run")
    assert said.code == 0
    assert "predicted" in said.stdout
    found = Report.load("run")
    assert found.predicted is not None
    assert [function.invocations for function in found.predicted.functions] == [2, 2]
    assert "predicted against metered" in Path("run/report.html").read_text()
    compared = fsd("report", "run", "--json").json()["runs"][0]
    assert compared["predicted"]["wall_s"] == found.predicted.wall_s
    assert compared["predicted"]["usd"] > 0


@pytest.mark.parametrize("error", [InputError("the sample makes no sense"), KeyError("makes no sense")])
def test_a_prediction_that_fails_fails_no_run(
    error: Exception, fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Session, "predict", fail)
    said = fsd("infer", "net", "x.npz", "-o", "out.npz", "--predict", "--report", "run")
    assert said.code == 0
    assert "makes no sense" in said.stderr.partition("no prediction: ")[2]
    assert Report.load("run").predicted is None


@pytest.mark.parametrize(
    ("flags", "run_s"),
    [
        ("", 900),
        ("--run-timeout 90s", 90),
        ("--checkpoint-every 4", 900),
        ("--stack functions.json", 900),
        ("--stack functions.json --checkpoint-every 4", 12 * 3600),
        ("--stack functions.json --checkpoint-every 4 --run-timeout 2h", 7200),
    ],
)
def test_the_run_clock_suits_runs_that_are_handed_on(
    flags: str, run_s: float, fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = "arn:aws:lambda:us-east-1:000000000000:function:s-"
    functions = FunctionsSpec(f"{arn}run", (WorkerFunction(1769, f"{arn}worker"),), "http://127.0.0.1:9/q", 60.0)
    stack = StackSpec("s", "http://127.0.0.1:9", "us-east-1", (), ("runs",), "networks", functions=functions)
    save_stack(stack, place / "functions.json")
    found: list[FailurePolicy] = []

    def opened(*_: object, failures: FailurePolicy, **__: object) -> None:
        found.append(failures)
        raise InputError("as far as here")

    monkeypatch.setattr("fsd_inference.session.Session", opened)
    assert "as far as here" in fsd("infer", "net", "x.npz", "-o", "out.npz", *flags.split()).stderr
    assert [policy.clocks for policy in found] == [Clocks(run_s=run_s)]


def test_shards_alone_are_not_foreseen(fsd: Fsd, place: Path) -> None:
    fsd("partition", "net", "--workers", "2", "-o", "shards")
    said = fsd("infer", "shards", "x.npz", "-o", "out.npz", "--channel", "local", "--predict")
    assert said.code == 0
    assert "no prediction: predictions need the network itself" in said.stderr


def test_a_rounded_exchange_is_told(fsd: Fsd, place: Path) -> None:
    said = fsd(
        "infer", "net", "x.npz", "-o", "out.npz", "--channel", "local", "--workers", "2", "--wire", "bfloat16", "--json"
    )
    assert said.code == 0
    assert said.json()["wire"] == "bfloat16"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--wire float16", "one worker sends nothing: leave it out"),
        ("--wire float16 --plan auto", "--plan auto compares plans that exchange float32"),
    ],
)
def test_what_a_rounded_exchange_does_not_go_with_is_one_line(fsd: Fsd, place: Path, flags: str, message: str) -> None:
    said = fsd("infer", *f"net x.npz -o out.npz {flags}".split())
    assert said.code == 2
    assert message in said.error()
