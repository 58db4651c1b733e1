"""Small models of every family and layout, warmed so that every layer fires, and inputs for them."""

from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn

from spikeloom.accel.analysis.spike_driven import firing_rates
from spikeloom.vision.models.spiking_transformer import SpikingTransformer
from spikeloom.vision.models.variants import create_model

# name of a published variant, and what makes it small
SMALL: dict[str, tuple[str, dict[str, object]]] = {
    "spikingformer_cifar": ("spikingformer_4_384", {"widths": (32,), "depths": (2,), "heads": 1}),
    "spikingformer_imagenet": ("spikingformer_8_384", {"widths": (32,), "depths": (1,), "heads": 1}),
    "spikingformer_dvs": ("spikingformer_2_256_dvs", {"widths": (32,), "depths": (1,), "heads": 1}),
    "cml_cifar": ("spikingformer_cml_4_384", {"widths": (32,), "depths": (2,), "heads": 1}),
    "cml_imagenet": ("spikingformer_cml_8_384", {"widths": (32,), "depths": (1,), "heads": 1}),
    "cml_dvs": ("spikingformer_cml_2_256_dvs", {"widths": (32,), "depths": (1,), "heads": 1}),
    "qkformer_cifar": ("qkformer_hst_4_384", {"widths": (16, 16, 32), "depths": (1, 1, 1), "heads": (4, 4, 1)}),
    "qkformer_imagenet": ("qkformer_hst_10_384", {"widths": (16, 16, 32), "depths": (1, 1, 1), "heads": (4, 4, 1)}),
    "qkformer_dvs": ("qkformer_hst_2_256_dvs128", {"widths": (16, 32), "heads": (4, 1)}),
    "ms_qkformer_cifar": ("ms_qkformer_hst_4_384", {"widths": (16, 16, 32), "depths": (1, 1, 1), "heads": (4, 4, 1)}),
    "ms_qkformer_imagenet": (
        "ms_qkformer_hst_10_384",
        {"widths": (16, 16, 32), "depths": (1, 1, 1), "heads": (4, 4, 1)},
    ),
    "ms_qkformer_dvs": ("ms_qkformer_hst_2_256_cifar10dvs", {"widths": (16, 32), "heads": (4, 1)}),
    "maxformer_cifar": ("maxformer_4_384", {"widths": (16, 16, 32), "depths": (1, 1, 1), "heads": 1}),
    "maxformer_imagenet": ("maxformer_10_384", {"widths": (16, 16, 32), "depths": (1, 1, 1), "heads": 1}),
    "maxformer_dvs": ("maxformer_2_256_dvs128", {"widths": (16, 32), "heads": 1}),
    "qkca": (
        "ms_qkformer_hst_4_384",
        {"widths": (16, 16, 32), "depths": (1, 1, 1), "heads": (4, 4, 1), "attention": ("qkca", "qkca", "ssa")},
    ),
}
SIDE = {"cifar": 16, "imagenet": 48, "dvs": 48}


def images(model: SpikingTransformer, batch: int, side: tuple[int, int] | None = None, steps: int = 4) -> Tensor:
    """Random images, or frames of event counts for models of events."""
    height, width = side or (SIDE[model.layout],) * 2
    generator = torch.Generator().manual_seed(5)
    if model.layout == "dvs":
        return torch.poisson(torch.full((steps, batch, model.in_chans, height, width), 0.7), generator=generator)
    return torch.randn(batch, model.in_chans, height, width, generator=generator)


def small(name: str, batch: int = 6) -> tuple[SpikingTransformer, Tensor]:
    """(a warmed model in evaluation mode, an input of up to 6 samples): every neuron population fires."""
    model, x = _warmed(name)
    return deepcopy(model), x[:, :batch] if x.dim() == 5 else x[:batch]


def warm(model: SpikingTransformer, batches: list[Tensor]) -> None:
    """Set running statistics to those of the last of some training passes, so that an untrained model fires.

    An untrained model in evaluation mode can be silent from the second layer on, and then no layer fails an audit.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta, was_training = [m.momentum for m in norms], model.training
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        for x in batches:
            model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


@cache
def _warmed(name: str) -> tuple[SpikingTransformer, Tensor]:
    published, sizes = SMALL[name]
    torch.manual_seed(1)
    model = create_model(published, **sizes)
    with torch.no_grad():
        for module in model.modules():  # published initial values give too few coincidences for attention to fire
            if isinstance(module, nn.BatchNorm2d):
                module.bias.uniform_(0.4, 1.0)
                module.weight.uniform_(0.8, 1.6)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.normal_(model.head.weight, std=0.2)
    x = images(model, 6)
    warm(model, [x, x])
    model.eval()
    with torch.no_grad(), firing_rates(model) as rates:
        model(x)
    assert all(rate > 0 for rate in rates.values()), f"silent: {[path for path, r in rates.items() if r == 0]}"
    return model, x
