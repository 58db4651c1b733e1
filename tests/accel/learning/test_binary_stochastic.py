"""Draws are fair and independent, errors are signs, and without draws it is back-propagation."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from spikeloom.accel.learning.stochastic.arrays import ArrayOptions
from spikeloom.accel.learning.stochastic.network import StochasticNetwork, layers_of, synapses_of, train_epoch, votes
from spikeloom.accel.learning.stochastic.policies import BsPolicy, Conv, Dense, Layer, classify, gradients, scores
from spikeloom.accel.learning.stochastic.sampling import Activation, bernoulli, binary, signal
from spikeloom.accel.learning.stochastic.synapses import UpdateRule

HP = BsPolicy(forward="hp", derivative="hp", error="hp", output="hp")
MLP: tuple[Layer, ...] = (Dense(n_in=12, n_out=9), Dense(n_in=9, n_out=7), Dense(n_in=7, n_out=4))
CNN: tuple[Layer, ...] = (
    Conv(n_in=1, n_out=3, size=10, kernel=3, pool=2, untied=True),
    Conv(n_in=3, n_out=4, size=4, kernel=3, padding=1, pool=2),
    Dense(n_in=16, n_out=4),
)


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def some(layers: tuple[Layer, ...], weights: str = "real", batch: int = 16, **rule: object) -> tuple:
    shape = (batch, 1, 10, 10) if isinstance(layers[0], Conv) else (batch, 12)
    pixels, labels = torch.rand(shape, generator=rng(1)), torch.randint(0, 4, (batch,), generator=rng(2))
    return synapses_of(layers, weights, UpdateRule(**rule), ArrayOptions(), batch, rng(3)), pixels, labels  # type: ignore[arg-type]


def test_a_draw_has_the_probability_asked_for() -> None:
    n = 200_000
    for p in (0.0, 0.1, 0.5, 0.93, 1.0):
        mean = bernoulli(torch.full((n,), p), rng()).mean().item()
        assert abs(mean - p) <= 4 * (p * (1 - p) / n) ** 0.5
    assert bernoulli(torch.tensor([-0.5, 0.0, 1.0, 7.0]), rng()).tolist() == [0, 0, 1, 1]
    assert binary(torch.tensor([0.0, 0.5, 0.5001, 2.0])).tolist() == [0, 0, 1, 1]


def test_every_call_draws_afresh() -> None:
    generator, p = rng(), torch.full((1000,), 0.5)
    assert not torch.equal(bernoulli(p, generator), bernoulli(p, generator))
    assert torch.equal(bernoulli(p, rng(5)), bernoulli(p, rng(5)))


def test_signal_and_derivative_of_a_neuron_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """With equal probabilities (p = D = 1/2, slope 2, y = 0) a shared draw would make both equal."""
    n = 40_000
    layers = (Dense(n_in=1, n_out=n), Dense(n_in=n, n_out=2))
    drawn: list[Tensor] = []

    def spy(p: Tensor, precision: str, generator: Generator) -> Tensor:
        drawn.append(signal(p, precision, generator))
        return drawn[-1]

    monkeypatch.setattr("spikeloom.accel.learning.stochastic.policies.signal", spy)
    synapses, *_ = some(layers)
    for layer in synapses:
        layer.weight.zero_()
    gradients(layers, synapses, torch.ones(1, 1), torch.zeros(1, dtype=torch.int64), BsPolicy(),
              Activation(slope=2.0), rng())  # fmt: skip
    slopes, bits = drawn[1].flatten(), drawn[2].flatten()
    assert abs(slopes.mean() - 0.5) < 0.01 and abs(bits.mean() - 0.5) < 0.01
    assert abs(torch.corrcoef(torch.stack((slopes, bits)))[0, 1]) < 4 / n**0.5


@pytest.mark.parametrize("layers", [MLP, CNN], ids=["mlp", "cnn"])
def test_without_draws_it_is_back_propagation(layers: tuple[Layer, ...]) -> None:
    synapses, pixels, labels = some(layers)
    for layer in synapses:
        layer.bias.uniform_(-0.5, 0.5, generator=rng(4))
    found = gradients(layers, synapses, pixels, labels, HP, Activation(), rng())

    weights = [s.weight.clone().requires_grad_() for s in synapses]
    biases = [s.bias.clone().requires_grad_() for s in synapses]
    x = pixels
    for index, (layer, weight, bias) in enumerate(zip(layers, weights, biases, strict=True)):
        conv = isinstance(layer, Conv)
        y = F.conv2d(x, weight, padding=layer.padding) + bias if conv else x.flatten(1) @ weight + bias
        x = torch.sigmoid(4 * y) if index < len(layers) - 1 else y
        x = F.max_pool2d(x, layer.pool) if isinstance(layer, Conv) else x
    loss = F.cross_entropy(x, labels)
    loss.backward()
    assert found.loss == pytest.approx(loss.item(), rel=1e-6)
    for mine, theirs in zip((*found.weights, *found.biases), (*weights, *biases), strict=True):
        assert theirs.grad is not None
        theirs_sum = theirs.grad * len(labels)
        assert torch.linalg.norm(mine - theirs_sum) <= 1e-6 * torch.linalg.norm(theirs_sum)


@pytest.mark.parametrize("layers", [MLP, CNN], ids=["mlp", "cnn"])
def test_errors_are_signs_and_gradients_whole_numbers_within_the_batch(layers: tuple[Layer, ...]) -> None:
    synapses, pixels, labels = some(layers)
    found = gradients(layers, synapses, pixels, labels, BsPolicy(), Activation(), rng())
    for delta in found.deltas:
        assert set(delta.unique().tolist()) <= {-1.0, 0.0, 1.0}
    for layer, of_weight in zip(layers, found.weights, strict=True):
        assert torch.equal(of_weight, of_weight.round()) and of_weight.abs().max() <= len(labels) * layer.positions
        assert of_weight.abs().max() > 0


def test_the_sign_of_no_error_is_no_error() -> None:
    synapses, pixels, labels = some(MLP)
    synapses[-1].weight.zero_()
    found = gradients(MLP, synapses, pixels, labels, BsPolicy(), Activation(), rng())
    assert not found.weights[0].any() and not found.weights[1].any() and found.weights[2].any()


def test_the_drawn_output_is_not_one_category() -> None:
    """Element by element: some samples get no class, some get several."""
    synapses, pixels, _ = some(MLP, batch=400)
    bits = scores(MLP, synapses, pixels, "s", Activation(), rng())
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert (bits.sum(1) == 0).any() and (bits.sum(1) > 1).any()


def test_equal_generators_give_equal_weights() -> None:
    ends = []
    for _ in range(2):
        synapses, pixels, labels = some(MLP, batch=50)
        network = StochasticNetwork(layers=MLP)
        generator = rng(9)
        train_epoch(network, synapses, pixels, labels, 10, generator)
        ends.append((synapses[0].weight.clone(), generator.get_state()))
    assert torch.equal(ends[0][0], ends[1][0]) and torch.equal(ends[0][1], ends[1][1])


def test_stochastic_votes_approach_the_mean_of_the_bits() -> None:
    synapses, pixels, _ = some(MLP, batch=6)
    network = StochasticNetwork(layers=MLP)
    n = 1000
    few = votes(network, synapses, pixels, "s", rng(1), repeats=n) / n
    more = votes(network, synapses, pixels, "s", rng(2), repeats=n) / n
    assert (few - more).abs().max() < 6 * (0.5 / n) ** 0.5


def test_the_first_of_equal_votes_wins() -> None:
    assert classify(torch.tensor([[0.0, 0, 0], [1, 2, 2], [3, 1, 3]])).tolist() == [0, 1, 0]


CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "logistic": lambda y: torch.sigmoid(4 * y), "relu": lambda y: y.clamp_min(0),
    "clip": lambda y: (4 * y).clamp(0, 1), "clip_half": lambda y: (4 * y + 0.5).clamp(0, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CURVES)
def test_a_derivative_is_that_of_its_curve(name: str) -> None:
    y = torch.linspace(-2, 2, 401, dtype=torch.float64).add(0.00123).requires_grad_()
    activation = Activation(name=name)
    p = activation.probability(y)
    assert torch.equal(p, CURVES[name](y))
    assert torch.allclose(torch.autograd.grad(p.sum(), y)[0], activation.derivative(y, p), atol=1e-12)


def test_borrowed_derivatives_keep_height_and_area() -> None:
    y = torch.linspace(-30, 30, 600_001, dtype=torch.float64)
    for slope in (1.0, 4.0):
        logistic, boxcar = Activation(slope=slope), Activation(name="logistic_boxcar", slope=slope)
        p = logistic.probability(y)
        assert torch.equal(boxcar.probability(y), p)
        areas = [torch.trapezoid(a.derivative(y, p), y).item() for a in (logistic, boxcar)]
        assert areas == pytest.approx([1, 1], abs=1e-3)
        assert boxcar.derivative(y, p).max() == logistic.derivative(y, p).max() == slope / 4
    truncated = Activation(name="truncated_relu")
    assert truncated.probability(torch.tensor([-1.0, 0.3, 5.0])).tolist() == pytest.approx([0, 0.3, 1])
    assert truncated.derivative(torch.tensor(0.0), torch.tensor(0.0)) == 1


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: BsPolicy(forward="x"), "policy.forward.*use one of hp, s, b"),
        (lambda: Activation(slope=0), "activation.slope.*0; use"),
        (lambda: Activation(name="tanh"), "use one of logistic, relu"),
        (lambda: UpdateRule(theta=0), "rule.theta.*0; use"),
        (lambda: layers_of("cnn_mnist", (1, 8, 8), 10), "network=cnn_mnist"),
        (lambda: layers_of("cnn_cifar10", (3, 30, 30), 10), "8.*got 30"),
        (lambda: synapses_of(MLP, "int9", UpdateRule(), ArrayOptions(), 4, rng()), "weights=int9"),
        (lambda: ArrayOptions(read_noise=-1), "array.read_noise.*-1; use"),
    ],
)
def test_a_wrong_setting_names_the_remedy(make: Callable[[], object], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        make()


def test_the_two_convolutional_networks_have_the_published_shapes() -> None:
    mnist = layers_of("cnn_mnist", (1, 28, 28), 10)
    assert [layer.weight_shape for layer in mnist] == [(8, 1, 9, 9), (12, 8, 5, 5), (108, 10)]
    assert mnist[0].bias_shape == (8, 20, 20)
    cifar = layers_of("cnn_cifar10", (3, 32, 32), 10)
    assert [layer.weight_shape for layer in cifar[-3:]] == [(3072, 512), (512, 256), (256, 10)]
    assert [layer.weight_shape[0] for layer in cifar[:6]] == [48, 48, 96, 96, 192, 192]
    for layers, shape in ((mnist, (2, 1, 28, 28)), (cifar, (2, 3, 32, 32))):
        synapses = synapses_of(layers, "real", UpdateRule(), ArrayOptions(), 2, rng())
        of = gradients(layers, synapses, torch.rand(shape), torch.tensor([1, 2]), BsPolicy(), Activation(), rng())
        assert [g.shape for g in of.weights] == [torch.Size(layer.weight_shape) for layer in layers]
