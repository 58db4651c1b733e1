"""Every registered model in small, with inputs for it, under one interface: what `tests/contracts` promise is asked of.

A `Row` makes a model and batches, and runs one on the other; the outcome is a list with one tensor for each sample, cut
to its valid length, so that a contract need not know where a model has its batch axis. Models fire: their norms are
drawn, and batches are strong.
"""

import fnmatch
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model
from torch import Generator, Tensor, nn

import spikeloom
from spikeloom.accel.learning.stochastic.classifier import StochasticClassifier
from spikeloom.accel.learning.stochastic.files import load_network, save_network
from spikeloom.accel.learning.stochastic.network import StochasticConfig
from spikeloom.accel.learning.stochastic.policies import gradients
from spikeloom.accel.spiking.batch_norm import RowBatchNorm
from spikeloom.bci.data.tokenizer import UNKNOWN
from spikeloom.bci.models.baselines import CharacterCTC, TransformerBART
from spikeloom.bci.models.cet_mae import CETMAE, CETMAEConfig
from spikeloom.bci.models.e2t_ptr import E2TPTR
from spikeloom.bci.zuco.records import N_FEATURES
from spikeloom.pipelines.api.models import _configured
from spikeloom.speech.models.readout import output_lengths

CLASSES, VOCABULARY = 3, 30
MASK_ID = VOCABULARY - 1


class Batch(NamedTuple):
    """x with the batch on axis `axis`, and what else `forward` takes, with the batch on the axis beside each."""

    x: Tensor
    axis: int
    others: tuple[Tensor, ...] = ()
    other_axes: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return self.x.shape[self.axis]

    def select(self, rows: Sequence[int]) -> "Batch":
        index = torch.tensor(rows, dtype=torch.long)
        others = (t.index_select(a, index) for t, a in zip(self.others, self.other_axes, strict=True))
        return self._replace(x=self.x.index_select(self.axis, index), others=tuple(others))

    def to(self, *where: Any) -> "Batch":
        """Converted or moved; whole numbers and masks keep their dtype."""
        move = lambda t: t.to(*where) if t.is_floating_point() or where == ("meta",) else t  # noqa: E731
        return self._replace(x=move(self.x), others=tuple(move(t) for t in self.others))


@dataclass(frozen=True, kw_only=True)
class Row:
    """kind: speech, pictures, frames, eeg or stochastic. options: what makes the model small. side: of a picture."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    side: int = 16
    build: Callable[[], nn.Module] | None = None  # of a model that is not registered


SPEECH = Row(kind="speech", options={"n_inputs": 5, "n_outputs": CLASSES})


def speech(**options: Any) -> Row:
    return replace(SPEECH, options={**SPEECH.options, **options})


def vision(side: int = 16, **options: Any) -> Row:
    return Row(kind="pictures", side=side, options={"n_outputs": CLASSES, **options})


ONE = {"widths": [8], "depths": [1], "heads": 1}
TWO, THREE = {"widths": [8, 16], "depths": [1, 1], "heads": 1}, {"widths": [8, 8, 16], "depths": [1, 1, 1], "heads": 1}
RESNET = {"widths": [4, 4, 6, 6], "blocks": [1, 1, 1, 1]}
EEG = {"width": 16, "encoder_layers": 1, "heads": 2, "ffn": 16, "unify_heads": 2, "unify_ffn": 16, "text_width": 16,
       "text_layers": 1, "text_heads": 2, "text_ffn": 16, "text_positions": 32}  # fmt: skip
# name or pattern of names -> its row; the first that fits counts
ROWS: dict[str, Row] = {
    "spikescr*": speech(width=8, heads=1),
    "spikcommander*": speech(width=8, heads=1, window=2),
    "cnn": speech(channels=[6, 6, 8]), "ds_cnn": speech(channels=[6, 6, 8]),
    "temporal_conv": speech(channels=[6, 6, 8]), "tcn": speech(channels=[6, 6, 6, 8]),
    "spiking_tcn": speech(channels=[6, 6, 8]), "ms_tcn": speech(channels=[6, 6, 8]),
    "gru": speech(hidden=[6, 6]), "gated_recurrent": speech(hidden=[6, 6]),
    "lif": speech(hidden=[8, 8]), "lif_network": speech(hidden=[8, 8]), "recurrent_lif": speech(hidden=[8, 8]),
    "spiking_cnn": vision(8, size=8, n_inputs=1), "spiking_mlp": vision(8, size=8, n_inputs=1),
    "spiking_net": vision(8, size=8, n_inputs=1),
    "conv_net": vision(32, name="mobilenet_v1"), "conv_net_imagenet": vision(32, name="resnet18"),
    "mobilenet_v1": vision(32, width=0.1), "resnet": vision(widths=[4, 6], blocks=[1, 1]),
    "small_resnet": vision(widths=[4, 6], blocks=[1, 1]), "resnet*": vision(32, **RESNET),
    "spiking_resnet": vision(stem="small", **RESNET), "sew_resnet": vision(stem="small", **RESNET),
    "*_resnet[1-9]*": vision(32, **RESNET), "small_s*_resnet": vision(**RESNET),
    "spiking_transformer": vision(**ONE), "spiking_vision": vision(**ONE), "small_spikingformer": vision(**ONE),
    "small_ms_qkformer": vision(**THREE),
    "spikingformer_*_dvs": Row(kind="frames", side=16, options=ONE), "spikingformer_cml_*": vision(32, **ONE),
    "spikingformer_[1-9]*": vision(32, **ONE), "*qkformer_digits": vision(**THREE, n_inputs=1),
    "spikingformer_digits": vision(**ONE, n_inputs=1),
    "*qkformer_*dvs*": Row(kind="frames", side=16, options=TWO), "*qkformer_hst_[1-9]*": vision(32, **THREE),
    "maxformer_*dvs*": Row(kind="frames", side=16, options=TWO), "maxformer_[1-9]*": vision(32, **THREE),
    "cet_mae*": Row(kind="cet_mae", options={"n_outputs": VOCABULARY, **EEG}),
    "e2t_ptr*": Row(kind="e2t_ptr", options={"n_outputs": VOCABULARY, "sizes": "cet_mae_planted"}),
    "stochastic_cnn": Row(kind="stochastic", side=20), "stochastic_cifar": Row(kind="stochastic", side=8),
    "stochastic*": Row(kind="stochastic", side=6, options={"hidden": [7]}),
    # not registered: what EEG decoders are compared with
    "baseline transformer_bart": Row(kind="e2t_ptr", build=lambda: TransformerBART(CETMAEConfig(**EEG), VOCABULARY)),
    "baseline character_ctc": Row(kind="eeg", build=lambda: CharacterCTC(CETMAEConfig(**EEG), 2)),
}  # fmt: skip
BASELINES = [name for name in ROWS if name.startswith("baseline ")]


def row_of(name: str) -> Row:
    return next(row for pattern, row in ROWS.items() if fnmatch.fnmatchcase(name, pattern))


@cache
def made(name: str) -> nn.Module:
    """The model that `model` copies, not to be changed."""
    torch.manual_seed(3)
    row = row_of(name)
    if row.build is not None:
        model = row.build()
    elif row.kind == "stochastic":
        config: StochasticConfig = _configured(name, row.options)
        image = (3 if config.network == "cnn_cifar10" else 1, row.side, row.side)
        network = config.build(image, CLASSES)
        model = StochasticClassifier(network, config.synapses(network, 4, Generator().manual_seed(3)))
    else:
        model = spikeloom.create_model(name, **row.options)
    with torch.no_grad():
        for path, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm | RowBatchNorm):
                module.weight.uniform_(0.8, 1.6)  # as published, deep layers of an untrained network are silent
                low = 1.5 if ".attn." in path else 0.4  # an attention over few tokens needs many coincidences
                module.bias.uniform_(low, low + 0.6)
            elif row.kind in ("pictures", "frames") and isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
    return model.eval()


def model(name: str) -> nn.Module:
    """A model that fires, in evaluation mode; every call gives another copy of the same."""
    return deepcopy(made(name))


def batch(name: str, size: int = 3, steps: int = 7, seed: int = 0) -> Batch:
    """Strong inputs, float32: of speech and EEG with lengths of which the first is all steps."""
    row, draw = row_of(name), Generator().manual_seed(seed)
    lengths = torch.tensor([max(1, steps - 2 * i) for i in range(size)], dtype=torch.long)
    mask = torch.arange(steps)[:, None] < lengths  # [T, B]
    if row.kind == "speech":
        x = 2 * torch.randn(steps, size, 5, generator=draw)
        return Batch(x, 1, (lengths,), (0,))
    if row.kind == "stochastic":
        (layer, *_) = made(name).network.layers
        shape = (layer.n_in, row.side, row.side) if hasattr(layer, "kernel") else (1, row.side, row.side)
        return Batch(torch.rand(size, *shape, generator=draw), 0)
    if row.kind == "pictures":
        return Batch(torch.randn(size, row.options.get("n_inputs", 3), row.side, row.side, generator=draw), 0)
    if row.kind == "frames":
        steps = min(steps, 3)
        return Batch(torch.poisson(torch.full((steps, size, 2, row.side, row.side), 0.7), generator=draw), 1)
    eeg = torch.randn(steps, size, N_FEATURES, generator=draw)
    ids = torch.randint(UNKNOWN + 1, MASK_ID, (5, size), generator=draw)
    if row.kind == "eeg":
        return Batch(eeg, 1, (mask,), (1,))
    if row.kind == "e2t_ptr":
        return Batch(eeg, 1, (mask, ids), (1, 1))
    masked = torch.zeros_like(mask)
    masked[0] = lengths > 1
    ids_masked = torch.zeros_like(ids, dtype=torch.bool)
    ids_masked[1] = True
    ids = torch.where(ids_masked, MASK_ID, ids)
    return Batch(eeg, 1, (mask, masked, ids, ids_masked), (1, 1, 1, 1))


def outcome(name: str, network: nn.Module, given: Batch) -> list[Tensor]:
    """What the network says of each sample of a batch, over its valid steps: one tensor, or several end to end."""
    kind, network_ = row_of(name).kind, cast(Any, network)
    if kind in ("pictures", "frames", "stochastic"):
        return list(network_(given.x))
    valid = given.others[0]
    if kind == "speech":
        logits, lengths = network_(given.x, valid), output_lengths(network, valid)
        return [logits[: int(n), i] for i, n in enumerate(lengths)]
    if kind == "eeg":
        log_p = network_(given.x, valid)
        return [log_p[: int(n) * network_.frames, i] for i, n in enumerate(valid.sum(0))]
    if kind == "e2t_ptr":
        if isinstance(network, TransformerBART):
            states = network.embed(given.x, valid)
            return [states[i, : int(n)] for i, n in enumerate(valid.sum(0))]
        return list(network_(given.x, *given.others).unbind(1))
    found = network_(given.x, *given.others)
    return [
        torch.cat([
            found.eeg[: int(n), i].flatten(), found.text[:, i].flatten(), found.eeg_vector[i], found.text_vector[i],
        ]) for i, n in enumerate(valid.sum(0))
    ]  # fmt: skip


def loss(name: str, network: nn.Module, given: Batch) -> Tensor:
    """Something that depends on everything the network says: for training models of EEG, what they minimise."""
    if isinstance(network, CETMAE):
        _, masked, _, ids_masked = given.others
        out = network(given.x, *given.others)
        likely = network.text_decoder(out.text[ids_masked])
        agreement = network.scale * out.eeg_vector @ out.text_vector.T
        return out.eeg[masked].pow(2).sum() + likely.logsumexp(1).sum() + agreement.log_softmax(1).diagonal().sum()
    if isinstance(network, E2TPTR | TransformerBART):
        return network.loss(given.x, *given.others)
    weigh = Generator().manual_seed(9)
    return torch.stack([
        (part * torch.randn(part.shape, generator=weigh).to(part)).sum() for part in outcome(name, network, given)
    ]).sum()  # fmt: skip


def whole_answer(network: nn.Module, given: Batch) -> Tensor:
    """Everything the network says of a batch, not cut to valid lengths; of a baseline with BART, what BART gets."""
    network_ = cast(Any, network)
    if isinstance(network, TransformerBART):
        return network.embed(given.x, given.others[0])
    answer: Tensor = network_(given.x, *given.others)
    return answer


def untouched_synapses(name: str) -> list[str]:
    """Weights and biases of a binary-stochastic network that no gradient of three batches reaches."""
    classifier = cast(StochasticClassifier, model(name))
    network, draw, reached = classifier.network, Generator().manual_seed(0), set[str]()
    for seed in range(3):
        of = gradients(
            network.layers, classifier.synapses, batch(name, size=4, seed=seed).x, torch.tensor([0, 1, 2, 0]),
            network.policy, network.activation, draw,
        )  # fmt: skip
        named = {f"{i} weight": w for i, w in enumerate(of.weights)} | {f"{i} bias": b for i, b in enumerate(of.biases)}
        reached |= {part for part, gradient in named.items() if bool(gradient.count_nonzero())}
    wanted = {f"{i} {part}" for i in range(len(network.layers)) for part in ("weight", "bias")}
    return sorted(wanted - reached)


def saved_and_loaded(name: str, network: nn.Module, folder: Path) -> nn.Module:
    """The model after a way through the files that runs keep."""
    if isinstance(network, StochasticClassifier):
        config = _configured(name, row_of(name).options)
        image = tuple(batch(name).x.shape[1:])
        save_network(folder, config, image, [str(k) for k in range(CLASSES)], 4, network.synapses)
        return StochasticClassifier(*load_network(folder)[:2]).eval()
    if row_of(name).build is not None:
        save_model(network, str(folder / "model.safetensors"))
        again = row_of(name).build()
        load_weights(again, str(folder / "model.safetensors"))
        return again.eval()
    network.save_pretrained(folder)
    domain = type(network).__module__.split(".")[1]
    return import_module(f"spikeloom.pipelines.domains.{domain}").load_weights(folder).eval()


@cache
def distinct(names: tuple[str, ...]) -> dict[str, list[str]]:
    """The names whose small models differ, each with all names that share it, which differ in depth and width."""
    groups: dict[str, list[str]] = {}
    for name in names:
        network = made(name)
        config = {**getattr(network, "_hub_mixin_config", {}), "pretrained_cfg": None}
        weights = [type(synapses).__name__ for synapses in getattr(network, "synapses", ())]
        key = f"{row_of(name)} {type(network).__name__} {config} {weights} {network}"
        groups.setdefault(key, []).append(name)
    return {first: [first, *others] for first, *others in groups.values()}
