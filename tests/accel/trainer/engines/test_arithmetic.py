"""Products in the chip's arithmetic: the kernel is the plain form, the plain form is the definition."""

import pytest
import torch

from spikeloom.accel.spiking.kernels.loader import use_backend
from spikeloom.accel.trainer.engines import arithmetic
from spikeloom.accel.trainer.engines.arithmetic import FP16, FP16_ACCUMULATED, FP32, Arithmetic, folded, product


def halves(*shape: int, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * spread).half().float()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("rows", [16, 10, 1])
def test_the_kernel_is_the_plain_form_bit_for_bit(rows: int, half: bool) -> None:
    a, b = halves(3, 7, 53), halves(3, 53, 70, seed=1)
    a[:, :, ::3], a[1, 2:4] = 0, 1
    a[0] *= 1e-4  # subnormal products
    assert torch.equal(arithmetic._compiled(a, b, rows, half), folded(a, b, rows, half))


def test_products_are_rounded_as_the_half_type_rounds() -> None:
    """Also below 2^-14, at ties, and beyond the largest number."""
    scales = 10.0 ** torch.randint(-4, 3, (50_000,), generator=torch.Generator().manual_seed(2))
    a = torch.cat([(halves(50_000) * scales).half().float(), torch.tensor([65504.0, 1.0, 3 * 2.0**-24])])
    factor = torch.tensor([[[2.0**-10 + 2.0**-19]]]).half().float() + 1.5
    b = torch.tensor([[[1.5]]])
    for f in (b, factor.half().float()):
        assert torch.equal(arithmetic._compiled(f, a[None, None], 16, False)[0, 0], (f[0, 0] * a).half().float())


def test_a_fold_is_a_tree_and_folds_are_summed_in_order() -> None:
    """2048 + 1 is 2048 in FP16: in a tree the ones meet first, in a chain they vanish one by one."""
    a = torch.tensor([[2048.0, 0.0, 1.0, 1.0]])
    ones = torch.ones(4, 1)
    assert product(a, ones, FP16_ACCUMULATED, rows=4).item() == 2050
    assert product(a, ones, FP16_ACCUMULATED, rows=1).item() == 2048
    assert product(a, ones, FP16, rows=1).item() == 2050


def test_spikes_times_weights_are_sums_of_weights() -> None:
    s = (torch.rand(40, 30, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    w = halves(30, 20)
    assert torch.equal(product(s, w, FP16), (s.double() @ w.double()).half().float())  # FP32 sums are exact here


def test_without_a_compiler_the_plain_form_gives_the_same() -> None:
    a, b = halves(2, 3, 5, 40), halves(40, 6, seed=1)
    with use_backend("torch"):
        plain = product(a, b, FP16_ACCUMULATED)
    assert torch.equal(product(a, b, FP16_ACCUMULATED), plain)


def test_modes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="use fp32 or fp16"):
        Arithmetic(operands="bf16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="accumulate=fp32"):
        Arithmetic(operands="fp32", accumulate="fp16")
    assert FP32.exact and not FP16.exact
