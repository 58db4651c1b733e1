"""What every model promises, whatever its domain; a registered model without a row here fails the first test."""

import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom
from spikeloom.accel.export.program import export
from spikeloom.bci.models.export_parts import DecoderStep
from spikeloom.pipelines.eeg.export import eeg_stream
from spikeloom.vision.models.prediction import skipping_zeros
from tests.contracts.rows import (
    BASELINES,
    ROWS,
    Batch,
    batch,
    distinct,
    loss,
    made,
    model,
    outcome,
    row_of,
    saved_and_loaded,
    untouched_synapses,
    whole_answer,
)

NAMES = [*spikeloom.list_models(), *BASELINES]
MISSING = [name for name in NAMES if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ROWS)]
DISTINCT = distinct(tuple(name for name in NAMES if name not in MISSING))
every_model = pytest.mark.parametrize("name", DISTINCT)


def of_kind(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", [name for name in DISTINCT if row_of(name).kind in kinds])


def close(a: list[Tensor], b: list[Tensor]) -> bool:
    tolerance = 1e-9 if a[0].dtype == torch.float64 else 1e-5
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x, y, rtol=tolerance, atol=tolerance) for x, y in zip(a, b, strict=True)
    )


def exact(name: str, **asked: int) -> tuple[nn.Module, Batch]:
    """Model and batch in double precision, where no rounding moves a membrane over its threshold; the weights of
    binary-stochastic networks have one precision."""
    if row_of(name).kind == "stochastic":
        return model(name), batch(name, **asked)
    return model(name).double(), batch(name, **asked).to(torch.float64)


def test_every_registered_model_has_a_row_and_every_row_a_model() -> None:
    assert MISSING == [], "a registered model needs a line in ROWS of tests/contracts/rows.py"
    used = {next(pattern for pattern in ROWS if fnmatch.fnmatchcase(name, pattern)) for name in NAMES}
    assert set(ROWS) - used == set()
    assert sorted(name for group in DISTINCT.values() for name in group) == sorted(NAMES)


@every_model
@torch.no_grad()
def test_a_sample_alone_gives_what_it_gives_in_a_batch(name: str) -> None:
    network, apart = exact(name)[0], False
    for seed in range(6):  # a network this small may say the same of two samples
        given = exact(name, seed=seed)[1]
        together = outcome(name, network, given)
        alone = [outcome(name, network, given.select([i]))[0] for i in range(given.size)]
        assert close(together, alone)
        apart = not close(together[:1], together[1:2]) or not close(together[1:2], together[2:])
        if apart:
            break
    assert apart, "no two samples are told apart"


@every_model
@torch.no_grad()
def test_the_order_of_a_batch_is_the_order_of_its_answers(name: str) -> None:
    network, given = exact(name)
    together = outcome(name, network, given)
    assert close(outcome(name, network, given.select([2, 0, 1])), [together[i] for i in (2, 0, 1)])


def padded(given: Batch) -> Batch:
    """With four more steps, and wild values wherever no step is valid."""
    more = 4
    x = torch.cat((given.x, torch.zeros(more, *given.x.shape[1:]).to(given.x)))
    valid, *others = given.others
    if valid.dim() == 1:
        mask = torch.arange(len(x))[:, None] < valid
    else:  # a mask over steps, and perhaps another of the same shape
        longer = [torch.cat((m, torch.zeros(more, m.shape[1], dtype=torch.bool))) for m in (valid, *others[:1])]
        mask = valid = longer[0]
        if others and others[0].dtype == torch.bool:
            others[0] = longer[1]
    return given._replace(x=torch.where(mask[..., None], x, 1e3), others=(valid, *others))


@of_kind("speech", "eeg", "e2t_ptr", "cet_mae")
@torch.no_grad()
def test_padding_changes_nothing(name: str) -> None:
    network, given = exact(name)
    assert close(outcome(name, network, given), outcome(name, network, padded(given)))


@every_model
@torch.no_grad()
def test_one_step_is_enough(name: str) -> None:
    network, given = model(name), batch(name, steps=1 if row_of(name).kind != "cet_mae" else 2)
    answers = outcome(name, network, given)
    if row_of(name).kind == "pictures" and hasattr(network, "T"):
        answers += outcome(name, network, given._replace(x=given.x[None], axis=1))
    assert all(bool(answer.isfinite().all()) for answer in answers)


@every_model
@torch.no_grad()
def test_an_empty_batch_is_refused_or_answered_in_shape(name: str) -> None:
    network, given = model(name), batch(name)
    try:
        answers = outcome(name, network, given.select([]))
    except ValueError as error:
        answers = [] if "batch" in str(error) or "shape" in str(error) else [error]
    assert answers == []


@every_model
@torch.no_grad()
def test_precision_of_the_answer_is_that_of_the_model(name: str) -> None:
    given = batch(name)
    single = outcome(name, model(name), given)
    if row_of(name).kind == "stochastic":
        with pytest.raises(ValueError, match="float32"):
            outcome(name, model(name).double(), given.to(torch.float64))
        return
    double = outcome(name, *exact(name))
    assert {a.dtype for a in single} == {torch.float32} and {a.dtype for a in double} == {torch.float64}
    assert all(bool(a.isfinite().all()) for a in (*single, *double))
    half = outcome(name, model(name).bfloat16(), given.to(torch.bfloat16))
    assert {a.dtype for a in half} == {torch.bfloat16} and all(bool(a.isfinite().all()) for a in half)


@every_model
@torch.no_grad()
def test_everything_a_model_holds_moves_with_it(name: str) -> None:
    """To a device without memory: one tensor left behind would meet those that moved."""
    network, given = model(name), batch(name)
    if row_of(name).kind in ("cet_mae", "e2t_ptr") and hasattr(network, "front"):  # BART looks at the values of masks
        held = list(network.to("meta").state_dict().values())
        network, given = eeg_stream(model(name)), given._replace(others=(), other_axes=())
        assert {tensor.device.type for tensor in held} == {"meta"}
    wanted = whole_answer(network, given).shape
    network.to("meta")
    if row_of(name).kind == "stochastic":
        with pytest.raises(ValueError, match="on the CPU"):
            whole_answer(network, given.to("meta"))
        return
    found = whole_answer(network, given.to("meta"))
    assert (found.shape, found.device.type) == (wanted, "meta")
    held = [*network.parameters(), *network.buffers()]
    assert {tensor.device.type for tensor in held} == {"meta"}


@every_model
@torch.no_grad()
def test_two_calls_give_the_same_whatever_came_between(name: str) -> None:
    network, given = model(name), batch(name)
    before = outcome(name, network, given)
    outcome(name, network, batch(name, size=2, steps=4, seed=1))
    after = outcome(name, network, given)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@every_model
def test_a_gradient_reaches_every_trainable_parameter(name: str) -> None:
    if row_of(name).kind == "stochastic":
        assert untouched_synapses(name) == []
        return
    network = exact(name)[0].train()
    reached: set[str] = set()
    trained = {path for path, parameter in network.named_parameters() if parameter.requires_grad}
    for seed in range(12):  # a network this small has few spikes
        loss(name, network, exact(name, size=4, seed=seed)[1]).backward()
        reached |= {p for p, q in network.named_parameters() if q.grad is not None and bool(q.grad.count_nonzero())}
        if reached >= trained:
            break
    assert trained - reached == set()


@every_model
@torch.no_grad()
def test_a_saved_model_is_loaded_as_it_was(name: str, tmp_path: Path) -> None:
    network, given = model(name), batch(name)
    again = saved_and_loaded(name, network, tmp_path)
    for kept in (network, again):
        skipping_zeros(kept)  # in one layout of memory, whose sums have one order
    pairs = zip(outcome(name, network, given), outcome(name, again, given), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


LIGHT = {"lif", "recurrent_lif", "spiking_cnn", "gated_recurrent", "ms_tcn", "conv_net"}  # a second each, or less


def families() -> list[Any]:
    """One model of every class and every way of building it that an export would meet, slow except `LIGHT`."""
    found: dict[str, str] = {}
    for name in DISTINCT:
        if row_of(name).kind not in ("stochastic", "cet_mae", "e2t_ptr", "eeg"):  # exported in parts, or as a workload
            network, parts = made(name), ("tokenizer", "residual", "layout", "readout", "form")
            built = [getattr(network, part, None) for part in parts]
            found.setdefault(f"{type(network).__name__} {built} {getattr(network, 'title', '')}", name)
    return [pytest.param(name, marks=[] if name in LIGHT else [pytest.mark.slow]) for name in found.values()]


@pytest.mark.parametrize("name", families())
def test_an_exported_model_computes_the_same(name: str) -> None:
    network, x = model(name), batch(name, size=2, steps=4).x
    if row_of(name).kind == "pictures" and hasattr(network, "T"):
        x = x.expand(network.T, *x.shape).contiguous()
    axes = "B..." if row_of(name).kind == "pictures" and not hasattr(network, "T") else "TB..."
    exported = export(network, [x], name="model", source={"densities": "one batch"}, axes=axes)
    other = batch(name, size=2, steps=4, seed=1).x.expand_as(x).contiguous()
    with torch.no_grad():
        found, wanted = exported.program.module()(other), network(other)
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert exported.workload.layers and not exported.workload.unsupported


@pytest.mark.parametrize("name", ["cet_mae", pytest.param("e2t_ptr", marks=pytest.mark.slow)])
@torch.no_grad()
def test_exported_parts_compute_the_same(name: str) -> None:
    network, eeg = model(name), batch(name, size=2).x
    stream = eeg_stream(network)
    states, ids = stream(eeg), torch.full((3, 2), 5)
    parts: list[tuple[nn.Module, tuple[Tensor, ...]]] = [(stream, (eeg,))]
    if name == "e2t_ptr":
        parts.append((DecoderStep(network), (states, ids)))
    for part, given in parts:
        exported = export(part.eval(), [given], name="part", source={"densities": "one batch"}, axes="TB...")
        assert torch.equal(exported.program.module()(*given), part(*given))
