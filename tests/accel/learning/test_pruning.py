"""Pruners on small networks: targets are met, zeros counted where they are, a state goes on exactly, models bake."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from spikeloom.accel.export.program import export
from spikeloom.accel.learning.pruning.at_init import AtInitConfig
from spikeloom.accel.learning.pruning.lats import LATSConfig, LinearThresholdConfig
from spikeloom.accel.learning.pruning.magnitude import MagnitudeConfig
from spikeloom.accel.learning.pruning.pruner import Pruner
from spikeloom.accel.learning.pruning.sparsity import MacCounter, sparsity_report
from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.schedule.simulator import simulate
from tests.accel.learning.networks import MobileNet, mlp, train
from tests.accel.learning.test_schedules import cosine

CONFIGS = {
    "lats": LATSConfig(sparsity=0.8), "homotopy": LATSConfig(sparsity=0.8, homotopy=0.05, freeze_step=50),
    "layer": LATSConfig(sparsity=0.8, scope="layer", until=0.7), "linear": LinearThresholdConfig(sparsity=0.8),
    "delayed": LATSConfig(sparsity=0.8, start_step=40), "threshold": LATSConfig(threshold=0.1, decay="latent"),
    "magnitude": MagnitudeConfig(sparsity=0.8, updates=9),
}  # fmt: skip


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that a random network has labelled."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(640, 20, generator=generator)
    return x, (x @ torch.randn(20, 4, generator=generator)).argmax(1)


def optimizer_of(model: nn.Module, kind: str) -> torch.optim.Optimizer:
    if kind == "SGD":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1e-2)


def resumed_halfway(
    start: Callable[[], tuple[nn.Module, Pruner, torch.optim.Optimizer]], plan: list[float]
) -> tuple[nn.Module, Pruner]:
    """Model and pruner after 6 epochs, the states of everything carried over into a fresh start at step 67."""
    x, y = problem()
    model, pruner, optimizer = start()
    train(model, pruner, x, y, optimizer, epochs=6, batch=32, steps=range(0, 67))
    saved = copy.deepcopy((model.state_dict(), pruner.state_dict(), optimizer.state_dict()))
    model, pruner, optimizer = start()
    pruner.plan(plan, optimizer)
    for part, state in zip((model, pruner, optimizer), saved, strict=True):
        part.load_state_dict(state)
    train(model, pruner, x, y, optimizer, epochs=6, batch=32, steps=range(67, len(plan)))
    return model, pruner


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_target_is_met_and_a_state_goes_on_exactly(name: str, kind: str) -> None:
    x, y = problem()

    def start():
        torch.manual_seed(0)
        model = mlp(20, 40, 4)
        return model, CONFIGS[name].build(model), optimizer_of(model, kind)

    model, pruner, optimizer = start()
    plan = train(model, pruner, x, y, optimizer, epochs=6, batch=32)
    sparsity = pruner.report().sparsity
    assert pruner.finished
    if pruner.target is not None:
        assert 0.8 <= sparsity.sparsity_of_pruned_layers < 0.805

    model3, pruner3 = resumed_halfway(start, plan)
    whole, resumed = model.state_dict(), model3.state_dict()
    assert whole.keys() == resumed.keys()
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []
    first, second = pruner.report(), pruner3.report()
    assert (first.threshold, first.l1, first.lr_sum, first.step) == (
        second.threshold,
        second.l1,
        second.lr_sum,
        second.step,
    )


def test_a_given_threshold_or_coefficient_is_reached_as_said() -> None:
    x, y = problem()
    for config in (LATSConfig(threshold=0.07), LATSConfig(l1=1e-3)):
        torch.manual_seed(0)
        model = mlp(20, 40, 4)
        pruner, optimizer = config.build(model), optimizer_of(model, "SGD")
        plan = train(model, pruner, x, y, optimizer, epochs=3, batch=32)
        final = 0.07 if config.threshold else 1e-3 / (1 - 0.9) * math.fsum(plan)
        assert pruner.report().threshold == pytest.approx(final)
        assert pruner.l1 == pytest.approx(final / math.fsum(plan) * (1 - 0.9))


def test_aiming_at_a_share_keeps_lambda_constant_while_the_latents_rest() -> None:
    torch.manual_seed(0)
    model = mlp(20, 40, 4)
    pruner = LATSConfig(sparsity=0.6, until=1.0).build(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rates = cosine(300)
    pruner.plan(rates, optimizer)
    l1 = []
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        pruner.after_step(optimizer)
        l1.append(pruner.l1)
    assert max(l1[:-5]) - min(l1[:-5]) < 1e-9 * max(l1)
    assert 0.6 <= pruner.report().sparsity.sparsity_of_pruned_layers < 0.602


def test_skipped_steps_move_neither_threshold_nor_weights() -> None:
    model = mlp(6, 5, 3)
    pruner, optimizer = LATSConfig(threshold=1.0).build(model), optimizer_of(model, "AdamW")
    pruner.plan([0.01] * 4, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = copy.deepcopy(model.state_dict())
    pruner.before_step(optimizer)
    pruner.after_step(optimizer, stepped=False)
    assert [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])] == []
    assert pruner.report().threshold == 0.0


def test_pruned_and_regrown_weights_are_counted_between_looks() -> None:
    model = mlp(3, 2)
    pruner, optimizer = LATSConfig(threshold=0.5).build(model), optimizer_of(model, "SGD")
    pruner.plan([0.1], optimizer)
    (entry,) = pruner.entries
    with torch.no_grad():
        entry.theta.copy_(torch.tensor([[0.1, 0.2, 1.0], [1.0, 1.0, 0.3]]))
    assert (pruner.report().pruned, pruner.report().regrown) == (0, 0)
    pruner.after_step(optimizer)
    assert (pruner.report().pruned, pruner.report().regrown) == (3, 0)
    with torch.no_grad():
        entry.theta[0, 0], entry.theta[1, 1] = 2.0, 0.0
    look = pruner.report()
    assert (look.pruned, look.regrown) == (1, 1)


def test_a_frozen_mask_lets_nothing_come_back() -> None:
    x, y = problem()
    torch.manual_seed(0)
    model = mlp(20, 40, 4)
    pruner, optimizer = LATSConfig(threshold=0.3, freeze_step=30).build(model), optimizer_of(model, "SGD")
    train(model, pruner, x, y, optimizer, epochs=4, batch=32, steps=range(0, 30))
    dead = [entry.weight == 0 for entry in pruner.entries]
    assert sum(int(d.sum()) for d in dead) > 50
    train(model, pruner, x, y, optimizer, epochs=4, batch=32, steps=range(30, 80))
    assert all(bool((entry.weight[d] == 0).all()) for entry, d in zip(pruner.entries, dead, strict=True))


def test_masks_found_before_training_leave_the_model_where_it_started() -> None:
    x, y = problem()
    torch.manual_seed(0)
    model = mlp(20, 40, 4)
    start = copy.deepcopy(model.state_dict())
    pruner = AtInitConfig(sparsity=0.7, steps=40, lr=0.01, last_layer_dense=True).build(model)

    def losses(twin: nn.Module):
        while True:
            for rows in torch.arange(640).split(64):
                yield nn.functional.cross_entropy(twin(x[rows]), y[rows])

    pruner.find(losses)
    for entry in pruner.entries:
        kept = entry.weight != 0
        assert torch.equal(entry.weight[kept], start[f"{entry.path}.weight"][kept])
    assert pruner.method == "prune_at_init"
    report = pruner.report().sparsity
    assert 0.7 <= report.sparsity_of_pruned_layers < 0.705 and report.layers[-1].zeros == 0
    optimizer = optimizer_of(model, "SGD")
    train(model, pruner, x, y, optimizer, epochs=2, batch=32)
    assert pruner.report().sparsity == report


def test_the_report_names_its_denominators_and_counts_the_work_left() -> None:
    model = MobileNet()
    pruner = LATSConfig(threshold=0.1, linear=False, last_layer_dense=True).build(model)
    optimizer = optimizer_of(model, "SGD")
    pruner.plan([0.1], optimizer)
    pruner.after_step(optimizer)
    counter = MacCounter(model)
    model(torch.randn(4, 3, 16, 16))
    report = pruner.report(counter.of_one(4)).sparsity
    inside = [layer for layer in report.layers if layer.pruned]
    assert [layer.path for layer in report.layers if not layer.pruned] == ["classifier"]
    assert report.zeros == sum(layer.zeros for layer in inside) > 0
    assert report.sparsity_of_pruned_layers == report.zeros / sum(layer.numel for layer in inside)
    assert report.sparsity_of_conv_and_linear == report.zeros / sum(layer.numel for layer in report.layers)
    assert report.sparsity_of_all_parameters == report.zeros / sum(p.numel() for p in model.parameters())
    assert report.layers[0].macs == 3 * 9 * 8 * 8 * 8  # 3x3 from 3 to 8 channels on 8 x 8 positions
    for layer in report.layers:
        assert layer.macs_left == layer.macs * (layer.numel - layer.zeros) // layer.numel
    assert report.macs_left == sum(layer.macs_left for layer in report.layers) < report.macs


@pytest.mark.parametrize("config", [LATSConfig(sparsity=0.7), MagnitudeConfig(sparsity=0.7)])
def test_a_baked_model_exports_with_the_density_of_its_weights(config) -> None:
    """Same outputs, the zeros of the report, nothing left of the rule; the simulator is told 1 - sparsity by layer."""
    torch.manual_seed(0)
    model = mlp(20, 40, 4)
    pruner, optimizer = config.build(model), optimizer_of(model, "SGD")
    x, y = problem()
    train(model, pruner, x, y, optimizer, epochs=2, batch=32)
    before, report = model(x).detach(), pruner.report().sparsity
    pruner.bake()
    assert torch.equal(model(x), before)
    assert sorted(model.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert [(layer.path, layer.zeros) for layer in sparsity_report(model).layers] == [
        (layer.path, layer.zeros) for layer in report.layers
    ]
    workload = export(model, [x[:24].reshape(6, 4, 20)], name="mlp", source={}).workload
    density = {layer.path: layer.density_weight.mean for layer in workload.layers if layer.kind == "gemm_weight"}
    assert density == {layer.path: pytest.approx(layer.density, abs=1e-12) for layer in report.layers}
    from spikeloom.pipelines.config.chips import load_chip

    chip: Chip = load_chip("neuromc")
    assert simulate(workload, chip).total.energy.total_pj > 0


def test_bad_settings_name_the_fix() -> None:
    model = mlp(6, 5, 3)
    for config, message in (
        (LATSConfig(), "exactly one target, got none; give pruning.sparsity or pruning.threshold or pruning.l1"),
        (LATSConfig(sparsity=0.5, l1=1.0), "exactly one target, got sparsity=0.5, l1=1.0"),
        (LATSConfig(sparsity=1.0), r"pruning.sparsity=1.0 is out of range; use a number in \[0, 1\)"),
        (LATSConfig(threshold=-1.0), "pruning.threshold=-1.0 is out of range"),
        (LATSConfig(sparsity=0.5, homotopy=0.0), "base of the homotopy"),
        (LATSConfig(sparsity=0.5, decay="both"), "use one of effective, latent, off"),
        (LATSConfig(sparsity=0.5, scope="row"), "use global or layer"),
        (LATSConfig(sparsity=0.5, until=0.0), r"in \(0, 1\]"),
        (LATSConfig(sparsity=0.5, freeze_step=0), "whole number >= 1"),
        (MagnitudeConfig(), "exactly one target"),
        (MagnitudeConfig(sparsity=0.5, start=0.8), "pruning.start=0.8 and pruning.until=0.75"),
        (MagnitudeConfig(sparsity=0.5, updates=0), "pruning.updates=0"),
        (AtInitConfig(sparsity=0.5, steps=0), "pruning.steps=0"),
    ):
        with pytest.raises(ValueError, match=message):
            config.build(model)
    with pytest.raises(ValueError, match=r"pruning.l1=0.1 has no meaning with AdamW.*optimizer=sgd"):
        LATSConfig(l1=0.1).build(model).plan([0.1], torch.optim.AdamW(model.parameters()))


def test_weights_with_different_learning_rates_are_refused() -> None:
    model = mlp(6, 5, 3)
    pruner = LATSConfig(threshold=0.1).build(model)
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.2}]
    with pytest.raises(ValueError, match=r"0 and 2 are optimised with lr 0.1 and 0.2.*pruning.exclude"):
        pruner.plan([0.1], torch.optim.SGD(groups))
    with pytest.raises(ValueError, match=r"2.weight is pruned but not optimised"):
        pruner.plan([0.1], torch.optim.SGD(model[0].parameters(), lr=0.1))
