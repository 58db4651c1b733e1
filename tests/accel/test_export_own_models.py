"""Models that others wrote, from the command line and in one call: MACs and parameters counted by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.export.api import export_model
from spikeloom.accel.export.neurons import SnnTorchLeaky, Step, Steps, swap_neurons
from spikeloom.accel.trainer.workload import Workload
from spikeloom.pipelines.cli import main
from spikeloom.pipelines.export.api import cost

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

class Lost(Net):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2)

def build():
    return Net()

def broken():
    return 1 / 0

def number():
    return 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    return tmp_path


def fails(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and len(lines[0]) < 700
    return lines[0]


def test_a_file_of_ones_own_is_exported_and_simulated(folder: Path) -> None:
    np.savez(folder / "x.npz", np.random.default_rng(0).normal(size=(4, 3, 12, 12)).astype(np.float32))
    main(["export", "model=net.py:build", "example=x.npz", "axes=BCHW"])
    workload = Workload.from_json(folder / "runs/net/export/workload.json")
    assert sum(layer.macs_forward for layer in workload.layers) == 4 * (144 * 3 * 8 * 9 + 80)
    assert sum(layer.parameters for layer in workload.layers) == 8 * 27 + 8 + 16 + 90
    assert (workload.time_steps, workload.batch_size) == (1, 4)
    assert workload.source["balance"].startswith("330 of 330 parameters owned, ")
    main(["export", "program=runs/net/export/program.pt2", "out=again", "axes=BCHW"])
    again = Workload.from_json(folder / "again/workload.json")
    assert [layer.macs_forward for layer in again.layers] == [layer.macs_forward for layer in workload.layers]
    quick = ["gpu=null", "what_if=false", "uncertainty=false"]
    main(["simulate", "model=net.py:Net", "input=4x3x12x12", "axes=BCHW", *quick])
    assert (folder / "runs/net/sim/report.html").is_file()


@pytest.mark.parametrize(("arguments", "words"), [
    (["model=nothing.py:build", "input=1x2"], "nothing.py: no such file"),
    (["model=net.py"], "model=FILE.py:build"),
    (["model=net.py:absent", "input=1x2"], "net.py: holds no absent; it defines"),
    (["model=net.py:broken", "input=1x2"], "net.py: broken raised ZeroDivisionError"),
    (["model=net.py:number", "input=1x2"], "number made a int; return a torch.nn.Module"),
    (["model=net.py:build"], "needs inputs; add example=FILE.npz"),
    (["model=net.py:build", "input=4xx3"], "is no shape; write 4x3x32x32"),
    (["model=net.py:build", "input=0x3x8x8"], "is empty"),
    (["model=net.py:build", "input=4x3x8x8", "axes=BC"], "axes got 'BC' for an input of 4 axes"),
    (["model=net.py:build", "example=absent.npz"], "absent.npz: no such file"),
    (["model=net.py:build", "example=net.py"], "net.py: not a readable .npz"),
    (["model=net.py:Lost", "input=4x3x8x8", "axes=BCHW"], "unused.weight, unused.bias"),
    (["model=net.py:build", "program=x.pt2"], "give one of them"),
    (["program=net.py"], "cannot read this program"),
    ([], "one model is needed"),
])  # fmt: skip
def test_what_cannot_be_exported_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in fails("export", *arguments, capsys=capsys)
    assert not (folder / "runs").exists()


def test_a_cost_in_one_call() -> None:
    found = cost(nn.Linear(64, 10), torch.randn(8, 64), axes="BN", chip="cacti28")
    assert found.workload.layers[0].macs_forward == 8 * 640
    assert found.energy_mj > 0 and found.time_ms > 0
    assert "650 of 650 parameters owned" in str(found) and "axes: BN (given)" in str(found)


def gemm(model: nn.Module, *inputs: Tensor, axes: str = "BN") -> tuple[int, int, int]:
    """MACs with weights, MACs of activations, parameters."""
    layers = export_model(model, tuple(inputs), axes=axes).workload.layers
    kinds = ("gemm_weight", "gemm_activation")
    macs = [sum(layer.macs_forward for layer in layers if layer.kind == kind) for kind in kinds]
    return macs[0], macs[1], sum(layer.parameters for layer in layers)


class Head(nn.Module):
    """Only the named output of a Hugging Face model, as a tensor."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, *inputs: Tensor) -> Tensor:
        found: Tensor = getattr(self.model(*inputs), self.name)
        return found


B, N, D, V = 2, 9, 32, 60  # batch, tokens, width, vocabulary
BLOCK = 4 * D * D + 2 * D * 4 * D  # MACs of a token in a transformer block


def test_a_bert_has_the_macs_of_its_blocks() -> None:
    from transformers import BertConfig, BertModel

    model = BertModel(
        BertConfig(
            vocab_size=V, hidden_size=D, num_hidden_layers=2, num_attention_heads=4, intermediate_size=4 * D,
            max_position_embeddings=16,
        )
    )  # fmt: skip
    weights, activations, owned = gemm(Head(model, "pooler_output"), torch.randint(0, V, (B, N)))
    assert weights == B * (N * 2 * BLOCK + D * D)
    assert activations == 2 * B * 2 * N * N * D
    assert owned == sum(p.numel() for p in model.parameters())


def test_a_gpt2_ties_its_readout_and_owns_its_positions() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=D, n_layer=2, n_head=4, n_positions=16))
    weights, activations, owned = gemm(Head(model, "logits"), torch.randint(0, V, (B, N)))
    assert weights == B * N * (2 * BLOCK + D * V)
    assert activations == 2 * B * 2 * N * N * D
    assert owned == sum(p.numel() for p in model.parameters())


def test_a_bart_reads_writes_and_attends_across() -> None:
    from transformers import BartConfig, BartForConditionalGeneration

    class Writer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = {
                f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in (("layers", 2), ("ffn_dim", 64))
            }
            heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
            config = BartConfig(vocab_size=V, d_model=D, max_position_embeddings=32, **sizes, **heads)
            self.bart = BartForConditionalGeneration(config)

        def forward(self, read: Tensor, written: Tensor) -> Tensor:
            found: Tensor = self.bart(input_ids=read, decoder_input_ids=written, use_cache=False).logits
            return found

    model, s = Writer(), 7
    weights, activations, owned = gemm(model, torch.randint(4, V, (B, N)), torch.randint(4, V, (B, s)))
    feed = 2 * D * 64
    per_layer = N * (4 * D * D + feed) + s * (6 * D * D + feed) + N * 2 * D * D
    assert weights == B * (2 * per_layer + s * D * V)
    assert activations == 2 * B * 2 * D * (N * N + s * s + s * N)
    assert owned == sum(p.numel() for p in model.parameters())


def stranger(library: str, name: str, **attributes: object) -> nn.Module:
    """A module whose class says that it comes from `library`."""
    kind = type(name, (nn.Module,), {"__module__": f"{library}.neurons", "forward": lambda self, x: x})
    module = kind()
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


def test_foreign_neurons_are_replaced_or_named() -> None:
    jelly = {"v_threshold": 1.0, "v_reset": 0.0, "detach_reset": False, "surrogate_function": None}
    leaky = {"beta": torch.tensor(0.9), "threshold": torch.tensor(1.0), "state_quant": False, "inhibition": False,
             "init_hidden": False, "output": False}  # fmt: skip
    model = nn.Sequential(
        stranger("spikingjelly", "LIFNode", tau=2.0, decay_input=True, step_mode="m", **jelly),
        stranger("spikingjelly", "IFNode", step_mode="s", **jelly),
        stranger("snntorch", "Leaky", reset_mechanism="zero", **leaky),
        stranger("snntorch", "Leaky", reset_mechanism="subtract", **leaky),
        stranger("snntorch", "Synaptic", threshold=1.0),
    )
    swapped, told = swap_neurons(model)
    assert isinstance(swapped, nn.Sequential)
    assert [type(m) for m in swapped][:3] == [Steps, Step, SnnTorchLeaky]
    assert "subtracts a step later" in str(told) and "snntorch Synaptic: traced operation by operation" in str(told)
    p = swapped[0].p
    assert (p.tau, p.threshold, p.v_reset, p.detach_reset) == (2.0, 1.0, 0.0, False)


def test_a_swap_for_an_export_leaves_the_callers_neurons() -> None:
    jelly = {"v_threshold": 1.0, "v_reset": 0.0, "detach_reset": False, "surrogate_function": None}
    model = nn.Sequential(
        nn.Linear(8, 8), stranger("spikingjelly", "LIFNode", tau=2.0, decay_input=True, step_mode="m", **jelly)
    )
    kept = model[1]
    workload = export_model(model, 3 * torch.rand(5, 2, 8)).workload
    assert model[1] is kept
    assert [layer.kind for layer in workload.layers] == ["gemm_weight", "neuron"]
    assert (workload.time_steps, workload.batch_size) == (5, 2)
    assert "1 spikingjelly LIFNode neuron layer" in workload.source["neurons"]
