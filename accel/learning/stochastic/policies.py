"""Binary-stochastic learning: a forward and a backward pass in which signals, derivatives and errors are single bits.

For layers l = 1..L of a network (arXiv 2304.12866), x_1 sampled anew from the pixels at every presentation:

    y_l = x_l W_l + b_l,   x_{l+1} = F(P(y_l)),   D~_l = D(D(y_l))             independent samples
    p = softmax(y_L),      delta_L = S(p) - onehot                             element by element, not categorical
    e_l = sign(delta_{l+1} W_{l+1}^T),   delta_l = e_l * D~_l                  sign(0) = 0
    g_l = x_l^T delta_l summed over the batch (and the positions of a convolution)

A convolutional block pools the analog P and samples afterwards; its error is routed to the position of the maximum.
Which signals are sampled is a `BsPolicy`; with all of them in high precision this is back-propagation of the softmax
cross-entropy. Weights are read through `stochastic.synapses` and updated there. Nothing here keeps state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from spikeloom.accel.learning.stochastic.sampling import PRECISIONS, Activation, bernoulli, signal


@dataclass(kw_only=True)
class BsPolicy:
    """Precision of each signal: hp (high precision), s (Bernoulli sample), b (binary threshold), sign.

    forward: inputs and hidden signals. derivative: of hidden neurons. error: signals of the backward pass.
    output: the softmax, in training; auto samples it where the signals are sampled or the errors are signs.
    Raises ValueError for another word.
    """

    forward: str = "s"
    derivative: str = "s"
    error: str = "sign"
    output: str = "auto"

    def __post_init__(self) -> None:
        for key, allowed in (
            ("forward", PRECISIONS), ("derivative", PRECISIONS), ("error", ("hp", "sign")),
            ("output", ("auto", "hp", "s")),
        ):  # fmt: skip
            if getattr(self, key) not in allowed:
                raise ValueError(f"policy.{key} is {getattr(self, key)!r}; use one of {', '.join(allowed)}")

    @property
    def draws_output(self) -> bool:
        return self.output == "s" or (self.output == "auto" and (self.forward == "s" or self.error == "sign"))

    @property
    def name(self) -> str:
        """F,E,D as the ablations are written: S,S,S is binary-stochastic learning, HP,HP,HP the baseline."""
        error = "S" if self.error == "sign" else "HP"
        return f"{self.forward.upper()},{error},{self.derivative.upper()}"


@dataclass(frozen=True, kw_only=True)
class Dense:
    """x [B, n_in] W [n_in, n_out] + b [n_out]. An input of any shape [B, ...] is flattened."""

    n_in: int
    n_out: int

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.n_in, self.n_out)

    @property
    def bias_shape(self) -> tuple[int, ...]:
        return (self.n_out,)

    @property
    def fan_in(self) -> int:
        return self.n_in

    @property
    def positions(self) -> int:
        """How often a weight meets its input for one sample."""
        return 1

    def weighted_sum(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat = x.flatten(1)
        return flat @ weight if bias is None else torch.addmm(bias, flat, weight)

    def error_back(self, delta: Tensor, weight: Tensor, x_shape: torch.Size) -> Tensor:
        return (delta @ weight.T).view(x_shape)

    def gradient(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1).T @ delta, delta.sum(0)


@dataclass(frozen=True, kw_only=True)
class Conv:
    """x [B, C, H, H] with kernels [n_out, C, k, k], stride 1, a bias for every position [n_out, h, h] where `untied`,
    else one for a channel; then the maximum over `pool` x `pool` (1: none)."""

    n_in: int
    n_out: int
    size: int  # H
    kernel: int
    padding: int = 0
    pool: int = 1
    untied: bool = False

    @property
    def map_size(self) -> int:
        """h, before pooling."""
        return self.size + 2 * self.padding - self.kernel + 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.n_out, self.n_in, self.kernel, self.kernel)

    @property
    def bias_shape(self) -> tuple[int, ...]:
        side = self.map_size if self.untied else 1
        return (self.n_out, side, side)

    @property
    def fan_in(self) -> int:
        return self.n_in * self.kernel**2

    @property
    def positions(self) -> int:
        return self.map_size**2

    def weighted_sum(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = F.conv2d(x, weight, padding=self.padding)
        return y if bias is None else y + bias

    def error_back(self, delta: Tensor, weight: Tensor, x_shape: torch.Size) -> Tensor:
        return conv2d_input(x_shape, weight, delta, padding=self.padding)

    def gradient(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        of_bias = delta.sum(0) if self.untied else delta.sum((0, 2, 3))[:, None, None]
        return conv2d_weight(x, self.weight_shape, delta, padding=self.padding), of_bias


Layer = Dense | Conv


class Readable(Protocol):
    """Weights as a layer reads them. Forward and backward may differ: a memristor array has a reference for each."""

    def forward(self, generator: Generator) -> tuple[Tensor, Tensor | None]: ...

    def backward(self, generator: Generator) -> Tensor: ...


class Gradients(NamedTuple):
    """Sums over the batch: of the weights and of the biases of each layer; and the mean cross-entropy, for watching."""

    weights: list[Tensor]
    biases: list[Tensor]
    deltas: list[Tensor]  # delta_l, for inspection
    loss: float


def gradients(
    layers: Sequence[Layer],
    synapses: Sequence[Readable],
    pixels: Tensor,
    labels: Tensor,
    policy: BsPolicy,
    activation: Activation,
    generator: Generator,
) -> Gradients:
    """One presentation of pixels [B, ...] in [0, 1] with labels [B]."""
    x = signal(pixels, policy.forward, generator)
    seen, slopes, places = [], [], []  # x_l, D~_l at the pooled map, and where the maximum was
    for layer, weights in zip(layers[:-1], synapses[:-1], strict=True):
        seen.append(x)
        y = layer.weighted_sum(x, *weights.forward(generator))
        p = activation.probability(y)
        y, p, place = _pool(layer, y, p)
        places.append(place)
        slopes.append(signal(activation.derivative(y, p), policy.derivative, generator))
        x = signal(p, policy.forward, generator)
    seen.append(x)
    y = layers[-1].weighted_sum(x, *synapses[-1].forward(generator))
    log_p = torch.log_softmax(y, dim=1)
    p = log_p.exp()
    delta = (bernoulli(p, generator) if policy.draws_output else p) - F.one_hot(labels, y.shape[1]).to(p.dtype)

    of_weights, of_biases, deltas = [], [], []
    for index in range(len(layers) - 1, -1, -1):
        layer = layers[index]
        of_weight, of_bias = layer.gradient(seen[index], delta)
        of_weights.append(of_weight)
        of_biases.append(of_bias)
        deltas.append(delta)
        if index:
            error = layer.error_back(delta, synapses[index].backward(generator), seen[index].shape)
            if policy.error == "sign":
                error = error.sign_()
            delta = _unpool(layers[index - 1], error * slopes[index - 1], places[index - 1])
    loss = F.nll_loss(log_p, labels).item()
    return Gradients(of_weights[::-1], of_biases[::-1], deltas[::-1], loss)


def _pool(layer: Layer, y: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """The maximum of P over the pooling window, y at the same place, and that place."""
    if not isinstance(layer, Conv) or layer.pool == 1:
        return y, p, None
    pooled, place = F.max_pool2d(p, layer.pool, return_indices=True)
    return y.flatten(2).gather(2, place.flatten(2)).view_as(pooled), pooled, place


def _unpool(layer: Layer, delta: Tensor, place: Tensor | None) -> Tensor:
    """delta at the place of the maximum, 0 elsewhere."""
    if place is None or not isinstance(layer, Conv):
        return delta
    side = layer.map_size
    whole = delta.new_zeros(*delta.shape[:2], side * side)
    return whole.scatter_(2, place.flatten(2), delta.flatten(2)).view(*delta.shape[:2], side, side)


def scores(
    layers: Sequence[Layer],
    synapses: Sequence[Readable],
    pixels: Tensor,
    precision: str,
    activation: Activation,
    generator: Generator,
) -> Tensor:
    """Output [B, classes] of one inference pass: softmax probabilities (hp), or bits (s: sampled, b: P > 1/2).

    Input, hidden signals and output have the same precision.
    """
    x = signal(pixels, precision, generator)
    for layer, weights in zip(layers[:-1], synapses[:-1], strict=True):
        y = layer.weighted_sum(x, *weights.forward(generator))
        _, p, _ = _pool(layer, y, activation.probability(y))
        x = signal(p, precision, generator)
    p = torch.softmax(layers[-1].weighted_sum(x, *synapses[-1].forward(generator)), dim=1)
    return signal(p, precision, generator)


def classify(votes: Tensor) -> Tensor:
    """The class [B] with most votes [B, classes]; the first of equals."""
    return (votes == votes.max(dim=1, keepdim=True).values).to(torch.uint8).argmax(dim=1)
