"""Memristors and accumulators: curves end where they should, a carry loses nothing, options do what they say."""

import pytest
import torch
from torch import Generator

from spikeloom.accel.learning.stochastic.arrays import ArrayOptions, MemristorSynapses, memristor_synapses
from spikeloom.accel.learning.stochastic.carry import accumulate
from spikeloom.accel.learning.stochastic.devices import DEVICES, Device, depression, potentiation, pulses_to_reach
from spikeloom.accel.learning.stochastic.network import StochasticNetwork, synapses_of, train_epoch
from spikeloom.accel.learning.stochastic.policies import Dense, Layer, gradients
from spikeloom.accel.learning.stochastic.sampling import Activation
from spikeloom.accel.learning.stochastic.synapses import (
    INTEGERS,
    IntegerSynapses,
    UpdateRule,
    integer_synapses,
    real_synapses,
)

LAYER = Dense(n_in=30, n_out=20)
CARRY = UpdateRule(update="carry")
WAYS = [(d, up) for d in DEVICES.values() for up in (True, False) if (d.pulses_up if up else d.pulses_down)]


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def array(device: str, seed: int = 0, layer: Layer = LAYER, **options: float) -> MemristorSynapses:
    return memristor_synapses(layer, DEVICES[device], ArrayOptions(**options), CARRY, 64, rng(seed))  # type: ignore[arg-type]


def push(synapses: MemristorSynapses, gradient: torch.Tensor, seed: int = 1) -> None:
    synapses.update(gradient, torch.zeros(20), 64, rng(seed))


@pytest.mark.parametrize(("device", "up"), WAYS, ids=[f"{d.name}-{'up' if up else 'down'}" for d, up in WAYS])
def test_as_many_pulses_as_published_lead_from_bound_to_bound(device: Device, up: bool) -> None:
    low, high = device.g_min_siemens, device.g_max_siemens
    g = torch.tensor(low if up else high, dtype=torch.float64)
    for _ in range(device.pulses_up if up else device.pulses_down):
        if up:
            g = g + potentiation(g, low, high, device.alpha_up, device.pulses_up)
        else:
            g = g + depression(g, low, high, device.alpha_down, device.pulses_down)
    assert abs(g.item() - (high if up else low)) <= 1e-9 * high


def test_a_straight_device_moves_by_an_equal_share_a_pulse() -> None:
    g = torch.linspace(1.0, 3.0, 5, dtype=torch.float64)
    assert torch.allclose(potentiation(g, 1.0, 3.0, 0.0, 50), torch.full_like(g, 2 / 50), rtol=1e-5)
    assert torch.allclose(depression(g, 1.0, 3.0, 0.0, 40), torch.full_like(g, -2 / 40), rtol=1e-5)


@pytest.mark.parametrize("name", ["pcm", "oxram"])
def test_counted_pulses_reach_a_conductance(name: str) -> None:
    device = DEVICES[name]
    up = device.writing == "pot_only"
    start, most = (device.g_min_siemens, device.pulses_up) if up else (device.g_max_siemens, device.pulses_down)
    g, steps = torch.tensor(start, dtype=torch.float64), []
    for _ in range(most):
        steps.append(g)
        curve = potentiation if up else depression
        alpha = device.alpha_up if up else device.alpha_down
        g = g + curve(g, device.g_min_siemens, device.g_max_siemens, alpha, most)
    assert pulses_to_reach(torch.stack(steps[:10]), device).tolist() == list(range(10))


@pytest.mark.parametrize("shape", [(7,), (4, 5), (2, 3, 3, 3)])
def test_a_carry_loses_nothing(shape: tuple[int, ...]) -> None:
    generator, theta = rng(), 5.0
    residual, total, carried = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)
    for _ in range(60):
        gradient = torch.randint(-14, 15, shape, generator=generator).float()
        total += gradient
        pulses = accumulate(residual, gradient, theta, single_pulse=False)
        carried.view(-1)[pulses.places] += pulses.counts
        assert torch.equal(total, residual - theta * carried) and residual.abs().max() < theta
    assert carried.abs().max() > 1, "the property was not put to the test"


def test_one_pulse_a_step_is_enough_within_the_batch_and_asserted() -> None:
    generator, residual, most = rng(), torch.zeros(200), 0.0
    for _ in range(300):
        gradient = torch.randint(-64, 65, (200,), generator=generator).float()
        pulses = accumulate(residual, gradient, 64, single_pulse=True)
        most = max(most, pulses.counts.abs().max().item() if len(pulses.counts) else 0)
    assert most == 1
    with pytest.raises(ValueError, match=r"2 pulses.*pulses=multiple"):
        accumulate(torch.zeros(3), torch.tensor([0.0, 128, 0]), 64, single_pulse=True)


def test_the_pulse_bound_follows_the_batch() -> None:
    assert UpdateRule(theta=64).single_pulse(64, 1) and not UpdateRule(theta=64).single_pulse(65, 1)
    assert not UpdateRule(theta=64).single_pulse(64, 4)
    assert UpdateRule(theta=64, pulses="single").single_pulse(100, 4)


def test_ideal_weights_carry_by_theta_rates() -> None:
    synapses = real_synapses(LAYER, CARRY, 64, rng())
    before = synapses.weight.clone()
    gradient = torch.zeros(30, 20)
    gradient[0, 0], gradient[1, 1], gradient[2, 2] = 64, -64, 63
    changed = synapses.update(gradient, torch.zeros(20), 64, rng())
    moved = synapses.weight - before
    assert moved[0, 0].item() == pytest.approx(-0.1) and moved[1, 1].item() == pytest.approx(0.1)
    assert moved.abs().sum().item() == pytest.approx(0.2)
    assert (changed.pulses_up, changed.pulses_down) == (1, 1)


@pytest.mark.parametrize("name", DEVICES)
def test_a_positive_gradient_lowers_a_weight_by_the_device_that_can(name: str) -> None:
    quiet = {k: getattr(DEVICES[name], k) for k in vars(DEVICES[name])} | {"gamma_up": 0.0, "gamma_down": 0.0}
    synapses = memristor_synapses(LAYER, Device(**quiet), ArrayOptions(), CARRY, 64, rng())
    before = synapses.forward(rng())[0].clone()
    gradient = torch.zeros(30, 20)
    gradient[3, 4], gradient[5, 6] = 64, -64
    push(synapses, gradient)
    moved = synapses.forward(rng())[0] - before
    assert moved[3, 4] < 0 < moved[5, 6]
    assert (moved != 0).sum() == 2 and int(synapses.state.pulse_count.sum()) == 2


@pytest.mark.parametrize("name", DEVICES)
def test_conductances_stay_in_the_window_and_endurance_counts_pulses(name: str) -> None:
    synapses, generator = array(name), rng(2)
    for step in range(100):
        push(synapses, torch.randint(-64, 65, (30, 20), generator=generator).float(), step)
    device = DEVICES[name]
    g = synapses.state.g_siemens.double()
    assert g.min() >= device.g_min_siemens * (1 - 1e-6) and g.max() <= device.g_max_siemens * (1 + 1e-6)
    assert synapses.state.pulse_count.sum() > 1000


def test_forward_and_backward_read_against_their_own_line() -> None:
    synapses = array("epiram_3")
    difference = synapses.forward(rng())[0] - synapses.backward(rng())
    column, row = synapses.state.reference_siemens
    assert column.shape == (30, 1) and row.shape == (1, 20)
    assert torch.allclose(difference, (row - column) / DEVICES["epiram_3"].window_siemens, atol=1e-6)
    shared = array("epiram_3", shared_reference=True)
    assert torch.equal(shared.forward(rng())[0], shared.backward(rng()))


def test_a_fresh_array_has_the_spread_asked_for() -> None:
    big = Dense(n_in=300, n_out=300)
    for spread in (0.02, 0.1):
        weight = array("epiram_2", layer=big, initial_spread=spread, reference_error=0.0).forward(rng())[0]
        device = DEVICES["epiram_2"]
        expected = spread * device.middle_siemens / device.window_siemens
        assert weight.std().item() == pytest.approx(expected, rel=0.02) and abs(weight.mean()) < 0.01 * expected + 1e-3


def test_devices_differ_where_a_spread_is_asked_for() -> None:
    synapses = array("pcmo", spread_g_max=0.1, spread_pulses=0.2, spread_alpha=0.1, spread_g_min=0.1)
    for name in ("g_min", "g_max", "alpha_up", "pulses_down"):
        curve = getattr(synapses.curves, name)
        assert curve.shape == (1, 30, 20) and curve.unique().numel() > 500
    push(synapses, torch.full((30, 20), 64.0))
    assert (synapses.state.g_siemens >= synapses.curves.g_min).all()
    assert array("pcmo").curves.g_max.dim() == 0


def test_a_noisy_read_differs_each_time_by_what_was_asked() -> None:
    synapses = array("epiram_3", read_noise=0.05)
    generator = rng()
    reads = torch.stack([synapses.forward(generator)[0] for _ in range(200)])
    assert reads.std(0).mean().item() == pytest.approx(0.05, rel=0.05)
    assert torch.equal(array("epiram_3").forward(rng(1))[0], array("epiram_3").forward(rng(2))[0])


def test_stuck_devices_never_move() -> None:
    synapses = array("epiram_3", stuck_high=0.1, stuck_low=0.2)
    stuck = ~synapses.alive
    assert 0.2 < stuck.double().mean() < 0.4
    before = synapses.state.g_siemens.clone()
    push(synapses, torch.full((30, 20), 64.0))
    assert torch.equal(before[stuck], synapses.state.g_siemens[stuck])
    assert not torch.equal(before, synapses.state.g_siemens)
    ends = torch.tensor([DEVICES["epiram_3"].g_min_siemens, DEVICES["epiram_3"].g_max_siemens])
    assert set(before[stuck].unique().tolist()) == set(ends.tolist())


def test_few_levels_are_all_a_device_holds() -> None:
    synapses, generator = array("epiram_3", levels=8), rng(3)
    for step in range(30):
        push(synapses, torch.randint(-64, 65, (30, 20), generator=generator).float(), step)
    touched = synapses.state.pulse_count > 0
    device = DEVICES["epiram_3"]
    share = (synapses.state.g_siemens[touched].double() - device.g_min_siemens) / device.window_siemens * 7
    assert touched.any() and (share - share.round()).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["pcm", "oxram"])
def test_a_refresh_keeps_the_difference_and_frees_the_pair(name: str) -> None:
    synapses, generator = array(name), rng(4)
    for step in range(60):
        push(synapses, torch.randint(-64, 65, (30, 20), generator=generator).float(), step)
    before, pulses = synapses.forward(rng())[0].clone(), synapses.state.pulse_count.sum()
    changed = synapses.refresh()
    device = DEVICES[name]
    bound = device.g_min_siemens if device.writing == "pot_only" else device.g_max_siemens
    g = synapses.state.g_siemens
    assert torch.allclose(synapses.forward(rng())[0], before, atol=1e-6)
    assert (torch.isclose(g, torch.tensor(bound), rtol=1e-6).any(0)).all()
    assert synapses.state.pulse_count.sum() - pulses == changed.pulses_up + changed.pulses_down > 0
    automatic = array(name, refresh_every=3)
    for step in range(3):
        push(automatic, torch.full((30, 20), 64.0), step)
    assert torch.isclose(automatic.state.g_siemens, torch.tensor(bound), rtol=1e-6).any(0).all()


def test_conductance_drifts_only_where_asked() -> None:
    device = DEVICES["pcm"]
    synapses = array("pcm", drift_nu=0.05)
    later = synapses.drifted(1e4)
    now, then = (s.state.g_siemens.double() - device.g_min_siemens for s in (synapses, later))
    assert torch.allclose(then, now * (1 + 1e4) ** -0.05, atol=1e-12) and not torch.allclose(then, now, atol=1e-8)
    assert torch.equal(array("pcm").drifted(1e4).state.g_siemens, array("pcm").state.g_siemens)


@pytest.mark.parametrize("width", INTEGERS)
def test_integers_keep_their_range_and_lose_no_gradient_within_it(width: str) -> None:
    rule = UpdateRule(rate=0.1)
    synapses, generator = integer_synapses(LAYER, width, rule, rng()), rng(5)
    scale, low, high = INTEGERS[width]
    assert synapses.weight.unique().numel() > 1, "small weights all became 0"
    start, total = synapses.weight.clone(), torch.zeros(30, 20, dtype=torch.float64)
    inside = (start > low) & (start < high)  # at every step so far
    for _ in range(40):
        gradient = torch.randint(-3, 4, (30, 20), generator=generator).float()
        total += rule.rate * scale * gradient.double() / 4
        synapses.update(gradient, torch.zeros(20), 4, rng())
        assert synapses.weight.min() >= low and synapses.weight.max() <= high
        assert torch.equal(synapses.weight, synapses.weight.round())
        assert synapses.residuals[0].abs().max() < 1
        inside &= (synapses.weight > low) & (synapses.weight < high)
    assert inside.any()
    moved = start - synapses.weight
    assert torch.allclose(moved[inside].double() + synapses.residuals[0][inside], total[inside], atol=1e-9)


def test_a_saturated_integer_drops_the_step_and_keeps_the_remainder() -> None:
    rule = UpdateRule(rate=1.0)
    synapses = IntegerSynapses(
        weight=torch.tensor([[1.0]]), bias=torch.zeros(1), width="ternary", rule=rule,
        residuals=(torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)),
    )  # fmt: skip
    synapses.update(torch.tensor([[-0.7]]), torch.zeros(1), 1, rng())
    assert synapses.weight.item() == 1 and synapses.residuals[0].item() == pytest.approx(-0.4, abs=1e-6)


def test_a_memristor_network_learns_and_its_tensors_say_all() -> None:
    layers = (Dense(n_in=16, n_out=32), Dense(n_in=32, n_out=2))
    labels = torch.randint(0, 2, (512,), generator=rng(7))
    bright = (torch.arange(16) < 8) == (labels == 1)[:, None]
    pixels = torch.where(bright, 0.7, 0.3)
    synapses = synapses_of(layers, "epiram_3", CARRY, ArrayOptions(), 64, rng(8))
    network, generator = StochasticNetwork(layers=layers), rng(9)
    losses = [train_epoch(network, synapses, pixels, labels, 64, generator).loss for _ in range(25)]
    assert losses[-1] < 0.7 * losses[0]
    assert all("conductance" in name or isinstance(t, torch.Tensor) for name, t in synapses[0].tensors().items())

    other = synapses_of(layers, "epiram_3", CARRY, ArrayOptions(), 64, rng(99))
    for mine, theirs in zip(other, synapses, strict=True):
        for name, tensor in theirs.tensors().items():
            mine.tensors()[name].copy_(tensor)
    seen = [
        gradients(layers, s, pixels, labels, network.policy, Activation(), rng(5)).weights[0] for s in (other, synapses)
    ]
    assert torch.equal(*seen)


def test_a_device_file_with_faults_is_refused() -> None:
    good = vars(DEVICES["pcm"])
    with pytest.raises(ValueError, match="use 0 <= g_min < g_max"):
        Device(**{**good, "g_min_siemens": 1.0})
    with pytest.raises(ValueError, match=r"pulses_up.*0.*pot_only"):
        Device(**{**good, "pulses_up": 0})
