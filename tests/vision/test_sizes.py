"""Every published model at the sizes it is used with: shapes without arithmetic, and real passes of small ones."""

import pytest
import torch

from spikeloom.vision.models.spiking_transformer import SpikingTransformer
from spikeloom.vision.models.variants import INPUT, MODELS, create_model
from tests.vision.small import images, small

# side -> tokens of the last stage: every halving rounds up
TOKENS = {
    "imagenet": {
        (224, 224): (14, 14), (288, 288): (18, 18), (384, 384): (24, 24), (220, 220): (14, 14), (224, 320): (14, 20),
    },
    "cifar": {(32, 32): (8, 8), (32, 48): (8, 12), (30, 30): (8, 8)},
    "dvs": {(128, 128): (8, 8), (128, 96): (8, 6), (120, 160): (8, 10)},
}  # fmt: skip
EVERY = pytest.mark.parametrize("name", sorted(MODELS))
WIDER = ("_512", "_768", "_256")  # the same shapes as a narrower sibling; left to the slow test of every depth
ONE_OF_A_KIND = pytest.mark.parametrize("name", [n for n in sorted(MODELS) if "_2_256" in n or not n.endswith(WIDER)])


def shapeless(name: str, **options: object) -> SpikingTransformer:
    """The published model without numbers: it knows shapes and computes nothing."""
    with torch.device("meta"):
        return create_model(name, **options).eval()


def shown(model: SpikingTransformer, side: tuple[int, int], batch: int = 2) -> torch.Tensor:
    shape = (batch, model.in_chans, *side)
    return torch.empty((3, *shape) if model.layout == "dvs" else shape, device="meta")


def one_block_each(name: str) -> SpikingTransformer:
    """The published widths with one block a stage: blocks keep the shape, so more of them add nothing here."""
    stages = 1 if name.startswith("spikingformer") else 2 if "_2_256" in name else 3
    return shapeless(name, depths=(1,) * stages)


def assert_takes_every_size(model: SpikingTransformer) -> None:
    for side, tokens in TOKENS[model.layout].items():
        x = shown(model, side)
        steps = 3 if x.dim() == 5 else model.T
        features = model.forward_features(x)
        assert features.shape == (steps, 2, model.num_features, *tokens), side
        assert model.forward_head(features).shape == (2, model.num_classes)


@ONE_OF_A_KIND
@torch.no_grad()
def test_every_published_kind_takes_every_size_of_its_use(name: str) -> None:
    assert_takes_every_size(one_block_each(name))


@pytest.mark.slow
@EVERY
@torch.no_grad()
def test_every_published_depth_takes_every_size_of_its_use(name: str) -> None:
    assert_takes_every_size(shapeless(name))


@EVERY
def test_every_published_model_names_what_does_not_fit(name: str) -> None:
    model = one_block_each(name)
    _, height, width = INPUT[model.layout]
    wrong = torch.empty(2, model.in_chans + 2, height, width, device="meta")
    with pytest.raises(ValueError, match=rf"got \(2, {model.in_chans + 2}, {height}, {width}\)"):
        model(wrong)
    with pytest.raises(ValueError, match="check in_chans"):
        model(torch.empty(model.in_chans, height, width, device="meta"))
    for empty in ((2, model.in_chans, 0, width), (0, model.in_chans, height, width)):
        with pytest.raises(ValueError, match="at least 1"):
            model(torch.empty(empty, device="meta"))
    with pytest.raises(ValueError, match="T must be at least 1"):
        model(shown(model, (height, width)), T=0)
    with pytest.raises(ValueError, match="call eval"):
        model.train().step(torch.empty(2, model.in_chans, height, width, device="meta"))
    with pytest.raises(TypeError, match="unknown argument colour"):
        shapeless(name, colour=3)
    with pytest.raises(ValueError, match="does not divide into 7 heads"):
        shapeless(name, heads=7)


@pytest.mark.parametrize(
    "name", ["spikingformer_imagenet", "cml_imagenet", "qkformer_imagenet", "ms_qkformer_imagenet"]
)
@pytest.mark.parametrize("side", [(220, 220), (224, 320)])
@torch.no_grad()
def test_a_large_picture_is_read_alone_as_in_its_batch(name: str, side: tuple[int, int]) -> None:
    model, _ = small(name)
    x = images(model, 2, side)
    together = model(x, T=2)
    assert together.isfinite().all()
    torch.testing.assert_close(model(x[1:], T=2), together[1:], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spikingformer_8_384", "spikingformer_cml_8_384", "qkformer_hst_10_384"])
@pytest.mark.parametrize("side", TOKENS["imagenet"])
@torch.no_grad()
def test_a_published_model_computes_at_every_size(name: str, side: tuple[int, int]) -> None:
    torch.manual_seed(0)
    logits = create_model(name).eval()(torch.randn(1, 3, *side), T=1)
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()
