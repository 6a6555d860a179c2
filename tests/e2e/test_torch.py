"""Networks from PyTorch modules and exported programs, compared with the modules themselves; and what is refused."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network import Network
from tests.support.cli import fsd_in
from tests.support.runs import dense

torch: Any = pytest.importorskip(
    "torch", reason="no torch: pip install 'fsd-inference[torch]' to import PyTorch modules"
)
prune: Any = pytest.importorskip("torch.nn.utils.prune")
nn, functional = torch.nn, torch.nn.functional

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


def module_of(function: Callable[..., Any], **parts: Any) -> Any:
    """Return a module that calls a function with itself and its input."""

    class Module(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x: Any) -> Any:
            return function(self, x)

    return Module().eval()


def agrees(module: Any, *shape: int, tolerance: float = 1e-5, dtype: Any = None) -> Network:
    """Import a module, and compare the outputs of the network with the module's for samples of a shape."""
    x = torch.randn(7, *shape, dtype=dtype or torch.float32)
    network = Network.from_torch(module.eval(), x[:2])
    with torch.no_grad():
        expected = module(x).double().reshape(7, -1).numpy()
    with fsd.Session(network) as session:
        rows = session.infer(x.double().reshape(7, -1).numpy()).outputs
    np.testing.assert_allclose(dense(rows), expected, rtol=tolerance, atol=tolerance)
    return network


def refused(module: Any, *shape: int, dtype: Any = None) -> str:
    with pytest.raises(InputError) as caught:
        Network.from_torch(module.eval(), torch.zeros(2, *shape, dtype=dtype))
    text = str(caught.value)
    assert "\n" not in text
    return text


class Residual(nn.Module):  # type: ignore[misc,name-defined]
    """A convolutional network with a residual connection, grouped convolutions and two kinds of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.normal = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.last = nn.Linear(4, 3)
        with torch.no_grad():
            self.normal.running_mean.uniform_(-1, 1)
            self.normal.running_var.uniform_(0.5, 2)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.normal(self.first(x)))
        x = functional.max_pool2d(functional.silu(self.second(x)) + x, 2)
        return self.last(functional.dropout(x.mean((2, 3)), training=self.training))


ACTIVATIONS = {
    "ReLU": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6(),
    "Hardtanh": nn.Hardtanh(-0.5, 0.75),
    "LeakyReLU": nn.LeakyReLU(0.2),
    "PReLU": nn.PReLU(5),
    "PReLU of one": nn.PReLU(),
    "Sigmoid": nn.Sigmoid(),
    "Tanh": nn.Tanh(),
    "GELU": nn.GELU(),
    "GELU tanh": nn.GELU(approximate="tanh"),
    "SiLU": nn.SiLU(),
    "Hardswish": nn.Hardswish(),
    "Hardsigmoid": nn.Hardsigmoid(),
    "ELU": nn.ELU(0.7),
    "SELU": nn.SELU(),
    "CELU": nn.CELU(2.0),
    "Softplus": nn.Softplus(),
    "Softplus of 2": nn.Softplus(2.0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    agrees(nn.Sequential(nn.Linear(4, 5), ACTIVATIONS[name], nn.Linear(5, 5)), 4)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv1d(2, 3, 3, padding="same", dilation=2), (2, 9)),
        (nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), (2, 7, 6)),
        (nn.Conv3d(1, 2, 2), (1, 3, 4, 3)),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 6, 7)),
        (nn.MaxPool1d(2, 1, dilation=2), (2, 7)),
        (nn.AvgPool2d(3, 2, 1), (2, 6, 7)),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 6, 7)),
        (nn.AdaptiveAvgPool2d((3, 5)), (2, 7, 8)),
        (nn.AdaptiveAvgPool1d(4), (2, 8)),
        (nn.AdaptiveMaxPool2d((2, 1)), (2, 4, 5)),
        (nn.Sequential(nn.ReflectionPad2d(1), nn.ZeroPad2d((1, 0, 2, 0))), (2, 3, 3)),
        (nn.Sequential(nn.Upsample(scale_factor=2), nn.PixelShuffle(2)), (4, 2, 3)),
        (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), (3, 4)),
        (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 6)), nn.Linear(6, 2)), (3, 4)),
        (Residual(), (2, 4, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "x".join(map(str, value)),
)
def test_modules(module: Any, shape: tuple[int, ...]) -> None:
    agrees(module, *shape)


WEIGHTS = {"w": nn.Parameter(torch.arange(-6.0, 6.0).reshape(4, 3) / 5), "b": nn.Parameter(torch.tensor([1.0, -2, 3]))}


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x @ m.w + m.b,
        lambda m, x: torch.addmm(m.b, x, m.w, beta=2, alpha=0.5),
        lambda m, x: (m.w.t() @ x.unsqueeze(2)).squeeze(2),
        lambda m, x: x @ m.w[:, 0],
        lambda m, x: (1 - x) / 4 + 2 * x[:, [3, 1, 0, 2]] - x.flip(1).roll(1, 1),
        lambda m, x: torch.cat([part * 2 for part in x.chunk(2, 1)] + [x[:, 1:4:2], m.b.expand(len(x), -1)], 1),
        lambda m, x: torch.stack(x.split([1, 3], 1)[1].unbind(1), 1).unsqueeze(1).expand(-1, 2, -1).transpose(1, 2),
        lambda m, x: torch.maximum(x.clamp(min=0), x.clamp_max(0.5)) + x.amax(1, keepdim=True) - x.sum(1, keepdim=True),
        lambda m, x: x * torch.sigmoid(x) + torch.ones_like(x),
        lambda m, x: functional.pad(x.reshape(len(x), 1, 2, 2), (1, 0, 0, 2), value=3.0).permute(0, 3, 1, 2),
        lambda m, x: -x.repeat(1, 2).index_select(1, torch.tensor([7, 0])),
    ],
)
def test_operators(function: Callable[..., Any]) -> None:
    agrees(module_of(function, **WEIGHTS), 4)


def test_pruned_weights_are_multiplied_by_their_masks_and_zeros_cost_nothing() -> None:
    module = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 5))
    prune.l1_unstructured(module[0], "weight", 0.6)
    assert agrees(module, 20).connections == 80 + 50
    assert module(torch.zeros(1, 20)).requires_grad  # the export has left the module as it was


def test_buffers_and_other_tensors_are_constants() -> None:
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0])
    module = module_of(lambda m, x: (x + shift) * m.factor)
    module.register_buffer("factor", torch.arange(4.0), persistent=False)
    agrees(module, 4)


def test_sparse_weights() -> None:
    module = nn.Linear(6, 5)
    dense = torch.where(torch.rand(5, 6) < 0.4, module.weight.detach(), 0.0)
    module.weight = nn.Parameter(dense.to_sparse_csr(), requires_grad=False)
    assert agrees(module, 6).connections == int(dense.count_nonzero())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-5), ("float16", 1e-2), ("bfloat16", 1e-1)])
def test_types(dtype: str, tolerance: float) -> None:
    kind = getattr(torch, dtype)
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).to(kind)
    network = agrees(module, 4, tolerance=tolerance, dtype=kind)
    assert network.layer(0).weights.toarray().tolist() == module[0].weight.float().tolist()  # exact in float32


@pytest.mark.parametrize(
    ("function", "output", "expected"),
    [
        (lambda x: x.softmax(1), fsd.OutputFunction("softmax"), lambda x: x.softmax(1)),
        (lambda x: x.log_softmax(-1), fsd.OutputFunction("log_softmax"), lambda x: x.log_softmax(1)),
        (lambda x: x.softmax(1).argmax(1), fsd.OutputFunction("argmax"), None),
        (lambda x: x.argmax(1, keepdim=True), fsd.OutputFunction("argmax"), None),
        (lambda x: x.topk(2), fsd.OutputFunction("top_k", 2), None),
        (lambda x: x.topk(2).indices, fsd.OutputFunction("top_k", 2), None),
    ],
)
def test_functions_of_all_outputs(
    function: Callable[[Any], Any], output: fsd.OutputFunction, expected: Callable[[Any], Any] | None
) -> None:
    linear = nn.Linear(4, 3)
    network = Network.from_torch(module_of(lambda _, x: function(linear(x)), linear=linear), torch.zeros(2, 4))
    assert network.output == output
    x = torch.randn(5, 4)
    with fsd.Session(network) as session:
        answer = session.infer(x.numpy())
    scores = linear(x).detach()
    wanted = scores if expected is None else expected(scores)
    np.testing.assert_allclose(dense(answer.outputs), wanted.numpy(), atol=1e-6)
    assert fsd.check(network, module_of(lambda _, x: function(linear(x)), linear=linear), x).agrees


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("symbolic", [False, True])
def test_files(tmp_path: Path, batch: int, symbolic: bool) -> None:
    module = Residual().eval()
    shapes = ({0: torch.export.Dim.AUTO},) if symbolic else None
    torch.export.save(
        torch.export.export(module, (torch.zeros(batch, 2, 4, 4),), dynamic_shapes=shapes), tmp_path / "model.pt2"
    )
    network = fsd.import_network(tmp_path / "model.pt2")
    assert network.digest == Network.from_torch(module, torch.zeros(2, 2, 4, 4)).digest
    assert network.name == "model"
    assert network.origin == f"PyTorch model.pt2, torch {torch.__version__}"
    x = torch.randn(5, 2, 4, 4)
    for samples in (x, x.reshape(5, -1)):
        found = fsd.check(network, tmp_path / "model.pt2", samples.numpy())
        assert found.agrees
        assert found.same_argmax == 1
    assert fsd.check(network, module, x).agrees


def test_files_that_were_decomposed(tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.SiLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 2)
    )
    program = torch.export.export(module.eval(), (torch.zeros(2, 2, 4, 4),)).run_decompositions()
    torch.export.save(program, tmp_path / "model.pt2")
    assert fsd.check(fsd.import_network(tmp_path / "model.pt2"), module, torch.randn(3, 2, 4, 4)).agrees


def test_the_command_imports_checks_and_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fsd_in(capsys)
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(2, 4),)), tmp_path / "model.pt2")
    said = run("network", "import", tmp_path / "model.pt2", "-o", tmp_path / "net")
    assert said.code == 0, said.stderr
    assert f"agrees with model.pt2 (torch {torch.__version__}) on 16 samples" in said.stdout
    assert "agrees with model.pt2" in run("network", "info", tmp_path / "net").stdout
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((9, 4)))
    checked = run(
        "network",
        "check",
        tmp_path / "net",
        "--against",
        tmp_path / "model.pt2",
        "--input",
        tmp_path / "x.npy",
        "--json",
    )
    assert checked.code == 0
    assert checked.json()["samples"] == 9
    without = run("network", "import", tmp_path / "model.pt2", "-o", tmp_path / "plain", "--no-check", "--json")
    assert without.json()["check"] is None


def test_the_layer_that_differs_is_named(tmp_path: Path) -> None:
    """A program whose file is replaced by one with another bias in its second layer."""
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).eval()
    other = copy.deepcopy(module)
    with torch.no_grad():
        other[2].bias += 0.5
    for name, given in (("model", module), ("other", other)):
        torch.export.save(torch.export.export(given, (torch.zeros(2, 4),)), tmp_path / f"{name}.pt2")
    network = fsd.import_network(tmp_path / "model.pt2")
    found = fsd.check(network, tmp_path / "other.pt2", np.random.default_rng(0).standard_normal((9, 4)))
    assert not found.agrees
    assert found.parts_at == "layer 1, 3 (tanh)"


@pytest.mark.parametrize(
    ("module", "shape", "reasons"),
    [
        (
            nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Mish()),
            (4,),
            ["1 (layer_norm) needs the mean", "2 (mish)"],
        ),
        (nn.ConvTranspose2d(2, 2, 3), (2, 4, 4), ["(convolution) is a transposed convolution"]),
        (nn.AdaptiveMaxPool2d(3), (2, 4, 4), ["(adaptive_max_pool2d) has windows of different sizes"]),
        (nn.Sequential(nn.Softmax(1), nn.Linear(4, 2)), (4,), ["follows softmax, which is allowed at the end only"]),
        (nn.Softmax(2), (3, 4), ["(_softmax) is allowed at the end only"]),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (4, 8), ["scaled_dot_product_attention"]),
        (nn.LSTM(4, 3, batch_first=True), (5, 4), ["mixes samples"]),
        (module_of(lambda _, x: x * x), (4,), ["multiplies two tensors that depend on the samples"]),
        (module_of(lambda _, x: 1 / x), (4,), ["divides by the samples"]),
        (module_of(lambda _, x: x - x.mean(0)), (4,), ["(mean) mixes samples"]),
        (module_of(lambda _, x: x.t().relu().t()), (2,), ["(permute) mixes samples"]),
        (module_of(lambda _, x: x.flip(0)), (4,), ["(flip) mixes samples"]),
        (module_of(lambda _, x: x[torch.tensor([1, 0])]), (4,), ["(index) mixes samples"]),
        (module_of(lambda _, x: x.softmax(0)), (4,), ["is allowed at the end only"]),
        (module_of(lambda _, x: (x + 1, x - 1)), (4,), ["has 2 outputs"]),
        (module_of(lambda _, x: x if x.sum() > 0 else -x), (4,), ["PyTorch cannot export this Module"]),
        (module_of(lambda _, x: (x > 0).float()), (4,), ["(gt) is the operator gt"]),
        (
            module_of(lambda m, x: x + m.w, w=nn.Parameter(torch.arange(8.0).reshape(2, 4))),
            (4,),
            ["(add) has a constant with other values for each sample"],
        ),
        (module_of(lambda _, x: x.int().float()), (4,), ["(_to_copy) makes values of type int32"]),
        (module_of(lambda _, x: x.softmax(1).int()), (4,), ["(_to_copy) converts what softmax makes to int32"]),
        (module_of(lambda _, x: x.roll(1)), (4,), ["mixes samples"]),
        (module_of(lambda _, x: x.clamp(5, 3)), (4,), ["(clamp) cannot be imported: the bounds of clip must ascend"]),
        (nn.CELU(-1.0), (4,), ["scales its inputs by -1, which must be positive"]),
        (module_of(lambda _, x: x.softmax(2).expand(-1, 2, -1)), (1, 4), ["follows softmax"]),
    ],
)
def test_refusals_name_every_operator_and_the_reason(module: Any, shape: tuple[int, ...], reasons: list[str]) -> None:
    text = refused(module, *shape)
    for reason in reasons:
        assert reason in text


def test_other_refusals() -> None:
    assert "floats of samples x features" in refused(nn.Embedding(4, 4), 3, dtype=torch.int64)
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    with pytest.raises(InputError, match=r"this Sequential is in training mode; call eval\(\)"):
        Network.from_torch(module, torch.zeros(2, 4))
    module.eval()[1].train()
    with pytest.raises(InputError, match=r"1 of this Sequential is in training mode"):
        Network.from_torch(module, torch.zeros(2, 4))
    with pytest.raises(InputError, match=r"takes a torch\.nn\.Module"):
        Network.from_torch(torch.relu, torch.zeros(2, 4))
    with pytest.raises(InputError, match="the example must be one tensor"):
        Network.from_torch(nn.ReLU().eval(), np.zeros((2, 4)))
    broken = nn.Linear(2, 2).eval()
    with torch.no_grad():
        broken.weight[1, 0] = float("nan")
    with pytest.raises(FileFormatError, match=r"the weight of output 1 and input 0 .* is NaN"):
        Network.from_torch(broken, torch.zeros(2, 2))


class Planted:
    """An object whose pickle creates a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _planted(folder: Path) -> bytes:
    stream = io.BytesIO()
    torch.save((Planted(folder / "executed"),), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("member", "change", "reason"),
    [
        ("data/sample_inputs/model.pt", lambda folder, _: _planted(folder), "sample inputs that are not plain tensors"),
        (
            "data/weights/model_weights_config.json",
            lambda _, old: old.replace(b'"use_pickle": false', b'"use_pickle": true'),
            "pickled tensors",
        ),
        ("data/constants/custom_obj_0", lambda folder, _: _planted(folder), "unpickle or run as code"),
        ("data/aotinductor/model/a.so", lambda *_: b"", "unpickle or run as code"),
        (
            "models/model.json",
            lambda _, old: old.replace(b"Symbol(", b"__import__('os').system("),
            "not plain arithmetic",
        ),
        ("models/model.json", lambda *_: b"{", "damaged"),
        ("models/model.json", lambda *_: json.dumps({}).encode(), "cannot be loaded by PyTorch"),
    ],
)
def test_files_that_could_run_code_are_refused(
    tmp_path: Path, member: str, change: Callable[[Path, bytes], bytes], reason: str
) -> None:
    module = nn.Linear(4, 3).eval()
    dynamic = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=dynamic), tmp_path / "model.pt2")
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[f"model/{member}"] = change(tmp_path, members.get(f"model/{member}", b""))
    with zipfile.ZipFile(tmp_path / "changed.pt2", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(FileFormatError, match=reason):
        fsd.import_network(tmp_path / "changed.pt2")
    assert not (tmp_path / "executed").exists()


def test_truncated_files(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(4, 3), (torch.zeros(2, 4),)), tmp_path / "model.pt2")
    whole = (tmp_path / "model.pt2").read_bytes()
    (tmp_path / "cut.pt2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="truncated, damaged or not an exported program"):
        fsd.import_network(tmp_path / "cut.pt2")
