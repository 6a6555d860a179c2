"""`fsd simulate` and `fsd calibrate`: results, files, and invalid input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd_package
from fsd_inference.forecast import calibration
from fsd_inference.forecast.timing import load_timing
from fsd_inference.run_report import RunReport
from fsd_inference.simulator import simulate
from tests.support.cli import Fsd, fsd_in
from tests.support.scenarios import scenario


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulate") / "net"
    fsd_package.random_network([48, 48, 48, 48], 6, seed=1).save(path)
    return path


def test_a_run_is_simulated_and_priced(fsd: Fsd, network: Path, tmp_path: Path) -> None:
    options = ("--samples", 40, "--workers", 3, "--partition", "block", "--runs", 3)
    said = fsd("simulate", network, *options, "--report", tmp_path / "run", "--json").json()
    assert said["workers"] == 3
    assert len(said["wall_s_of_runs"]) == 3
    assert said["wall_s"] in said["wall_s_of_runs"]
    assert said["cost"]["usd"] > 0
    report = RunReport.load(tmp_path / "run")
    assert report.wall_s == said["wall_s"]
    assert len(report.ranks) == 3
    assert said == fsd("simulate", network, *options, "--json").json()
    text = fsd("simulate", network, *options).stdout
    assert "simulated     queue, P=3, 40 samples; timing of aws" in text
    assert "of 3 runs median" in text
    objects = [
        fsd("simulate", network, *options, "--channel", "object", "--buckets", count, "--json").json()
        for count in (1, 2)
    ]
    lists = [found["usage"]["requests"]["s3.list"] for found in objects]
    assert lists[1] - lists[0] == 16  # the folders of a bucket more
    direct = fsd("simulate", network, *options, "--channel", "direct", "--memory", 1024, "--json").json()
    assert "MicroVM memory" in {line["item"] for line in direct["cost"]["lines"]}
    of_functions = sum(line["quantity"] for line in direct["cost"]["lines"] if line["item"].startswith("time, "))
    assert of_functions == pytest.approx(0.5 * direct["wall_s"], rel=0.05)  # of the coordinator alone, with 512 MB
    servers = fsd("simulate", network, *options, "--channel", "mpi", "--json").json()
    assert servers["cost"] is None
    assert servers["wall_s"] < said["wall_s"]


def test_a_run_of_an_hour_is_handed_on(fsd: Fsd, tmp_path: Path) -> None:
    """Kernels that take a minute and more for a layer."""
    fsd_package.random_network([48] * 33, 6, seed=1).save(tmp_path / "deep")
    rates = [name for name in load_timing().values if name.startswith("kernel.")]
    value = {"value": 1e-7, "unit": "Gedge/s", "source": "a test"}
    timing = {"format": "fsd-timing", "version": 1, "name": "slow", "date": "2026-11", "base": "aws"}
    (tmp_path / "slow.json").write_text(json.dumps({**timing, "values": dict.fromkeys(rates, value)}))
    options = ("--samples", 60, "--workers", 2, "--partition", "block", "--timing", tmp_path / "slow.json")
    for channel in ("queue", "object"):
        late = fsd("simulate", tmp_path / "deep", *options, "--channel", channel)
        assert "did not finish by the run's deadline (900 s)" in late.error()
        shown = fsd("simulate", tmp_path / "deep", *options, "--channel", channel, "--checkpoint-every", 2)
        assert "invocations in a row of each function; resumed at layer" in shown.stdout
        said = fsd(
            "simulate", tmp_path / "deep", *options, "--channel", channel, "--checkpoint-every", 2, "--json",
            "--report", tmp_path / channel,
        ).json()  # fmt: skip
        assert said["attempts"] >= said["wall_s"] / 900 > 2
        assert said["checkpoints"] >= 2 * 15
        report = RunReport.load(tmp_path / channel)
        assert report.attempts == said["attempts"]
        assert report.earlier.workers == 2 * (said["attempts"] - 1)


def test_inputs_and_shards_are_taken(fsd: Fsd, network: Path, tmp_path: Path) -> None:

    batch = tmp_path / "x.npz"
    sparse.save_npz(batch, sparse.csr_array((np.random.default_rng(0).random((30, 48)) < 0.3).astype(np.float32)))
    cut = fsd("partition", network, "--workers", 2, "--method", "block", "-o", tmp_path / "shards", "--json")
    assert cut.code == 0
    sampled = fsd("simulate", network, batch, "--workers", 2, "--partition", "block", "--json").json()
    shards = fsd("simulate", tmp_path / "shards", "--samples", 30, "--json").json()
    assert sampled["samples"] == shards["samples"] == 30
    assert sampled["usage"]["frames"] == shards["usage"]["frames"]
    assert sampled["usage"]["wire_bytes"] < 2 * shards["usage"]["wire_bytes"]
    assert "needs the network itself" in fsd("simulate", tmp_path / "shards", batch).error()
    assert "holds shards for 2 workers" in fsd("simulate", tmp_path / "shards", "--workers", 3, "--samples", 1).error()


def test_launches_are_compared(fsd: Fsd) -> None:
    said = fsd("simulate", "--launch", "--warm", 2000, "--runs", 3, "--json").json()
    launches = {(one["workers"], one["branching"]): one["median_s"] for one in said["launches"]}
    assert min(workers for workers, _ in launches) == 8
    assert launches[1000, 8] < launches[1000, 999]
    assert "0 environments are warm" in fsd("simulate", "--launch", "--runs", 2).stdout


@pytest.fixture
def few_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "NEURONS", (64, 128))
    monkeypatch.setattr(calibration, "SAMPLES", (1, 32))


@pytest.mark.usefixtures("few_rates")
def test_kernels_are_measured_and_used(fsd: Fsd, network: Path, tmp_path: Path) -> None:
    file = tmp_path / "kernel.json"
    said = fsd("calibrate", "-o", file, "--json").json()
    assert set(said["values"]) == {f"kernel.{n}.{s}" for n in (64, 128) for s in (1, 32)}
    assert all(entry["value"] > 0 and "measured on" in entry["source"] for entry in said["values"].values())
    assert load_timing("emulator", file).kernel_rates()[64, 32] > 0
    used = fsd("simulate", network, "--samples", 9, "--workers", 2, "--timing", file, "--json").json()
    assert used["timing"].startswith("timing of kernel")


def test_services_are_fitted_on_runs(fsd: Fsd, tmp_path: Path) -> None:
    it = scenario(4, 20, times=load_timing())
    simulate(it).report().save(tmp_path / "run")
    said = fsd("calibrate", "--runs", tmp_path / "run", "-o", tmp_path / "fit.json", "--json").json()
    assert {"publish.median_s", "deliver.p99_s", "client.after_s"} <= set(said["values"])
    assert load_timing("aws", tmp_path / "fit.json")["publish.median_s"] == said["values"]["publish.median_s"]["value"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("simulate",), "give either a network or --launch"),
        (("simulate", "NET"), "give the number of --samples"),
        (("simulate", "NET", "--launch"), "--launch takes no network"),
        (("simulate", "NET", "--samples", "5", "--timing", "none.json"), "none.json: cannot be read"),
        (("simulate", "NET", "--samples", "5", "--timing", "BAD"), "is not JSON"),
        (("simulate", "nowhere", "--samples", "5"), "nowhere"),
        (
            ("simulate", "NET", "--samples", "5", "--channel", "mpi", "--checkpoint-every", "4"),
            "checkpoints are for the functions of queue and object: leave them out with mpi",
        ),
        (("simulate", "NET", "--samples", "5", "--region", "mars"), "no prices of region 'mars'"),
        (("calibrate", "-o", "x.json", "--runs", "nowhere"), "nowhere: cannot be read"),
        (("calibrate", "-o", "x.json", "--runs", "BAD"), "is not"),
    ],
)
def test_bad_input_is_one_line(
    fsd: Fsd, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    names = {"NET": str(network), "BAD": "bad.json"}
    answer = fsd(*(names.get(argument, argument) for argument in arguments))
    assert answer.code == 2
    assert said in answer.error()
    assert not (tmp_path / "x.json").exists()
