"""A training step (T = 4) of a vision model, its arithmetic floor, and the same network in SpikingJelly layers.

ours        as a training builds it: channels last, so that convolutions skip zeros
floor       2 operations a multiply-accumulate, three passes (none into the pixels), at the rate of a matrix product;
            dense, so skipping zeros can go below it
bfloat16    only where the processor multiplies it; elsewhere one convolution shows the cost of emulation
"""

from typing import Any

import torch
import torch.nn.functional as F

from spikeloom.benchmarks import peers
from spikeloom.benchmarks.measure import apart, clock, median_ms, now_s, peak_mb
from spikeloom.vision.energy import layer_shapes
from spikeloom.vision.models.variants import create_model

NETWORKS = (("spikingformer_4_384", 4), ("qkformer_hst_4_384", 2))  # name, batch
SIZE = (3, 32, 32)


def print_vision(repeats: int, batch: int = 0) -> None:
    """One block a network; every figure comes from a fresh process of this run, ratios are what to quote.

    `batch` images in a step, 0: as NETWORKS has it. Weights and gradients take the same memory in any batch, so a
    training's ratios of memory are those of a large one. Raises ValueError for a negative batch.
    """
    if batch < 0:
        raise ValueError(f"batch must be at least 1 image, got {batch}; use 16, or 0 for a small one of each network")
    repeats = max(2, repeats // 8)
    rate = matmul_rate()
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    print(
        f"training step (forward, loss, backward), 32 x 32 images, {torch.get_num_threads()} threads, {clock()}, "
        f"matrix product {rate / 1e9:.0f} GFLOP/s, {'with' if has_bf16 else 'without'} bfloat16 products"
    )
    for name, small in NETWORKS:
        images = batch or small
        floor_ms = 1e3 * step_operations(name, images) / rate
        print(f"{name}, batch {images}: floor {floor_ms:.0f} ms")
        ways = ["ours", *(["SpikingJelly"] if peers.installed() else []), "ours, compact", "ours, checkpointing"]
        ways += ["ours, compact, checkpointing", "ours, channels first"]
        ways += ["ours, bfloat16", "ours, bfloat16, channels first"] if has_bf16 else []
        first = 0.0
        for way in ways:
            ms, mb = apart(training_step, way, name, images, repeats, spare="compact" in way)
            first = first or ms
            print(f"  {way:43s} {ms:8.0f} ms  {ms / first:5.2f} of ours  {ms / floor_ms:5.2f} of floor  {mb:7.0f} MB")
        if not peers.installed():
            print("  SpikingJelly                                not installed")
    if not has_bf16:
        print(f"one convolution in emulated bfloat16 takes {emulated_bfloat16():.1f} times as long as in float32")


def matmul_rate() -> float:
    """Floating-point operations a second of a product of two 1536 x 1536 float32 matrices."""
    n = 1536
    a, b = torch.randn(n, n), torch.randn(n, n)
    return 2 * n**3 / (median_ms(lambda: a @ b, 9) / 1e3)


def step_operations(name: str, batch: int) -> float:
    """Operations of forward, input and weight gradients of the convolutions; attention and norms not included."""
    with torch.device("meta"):
        model = create_model(name)
    first, *later = layer_shapes(model, SIZE)
    return 2.0 * batch * (2 * first.macs + model.T * 3 * sum(layer.macs for layer in later))


def training_step(way: str, name: str, batch: int, repeats: int) -> tuple[float, float]:
    """Median milliseconds of a step and peak memory in MB above what the process held before its first step."""
    torch.manual_seed(0)
    model: Any = create_model(name).train()
    images, labels = torch.randn(batch, *SIZE), torch.randint(10, (batch,))
    if way == "SpikingJelly":
        from spikeloom.benchmarks.vision_peers import Twin

        model = Twin(model)
    elif "channels first" not in way:
        model.to(memory_format=torch.channels_last)
    if "compact" in way:
        model.set_compact()
    if "checkpointing" in way:
        model.set_grad_checkpointing()

    def once() -> None:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in way):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()

    before = peak_mb()
    return median_ms(once, repeats), peak_mb() - before


def emulated_bfloat16() -> float:
    """Time of a 3x3 convolution in bfloat16 over that in float32."""
    x, weight = torch.randn(8, 96, 16, 16), torch.randn(96, 96, 3, 3)

    def seconds(dtype: torch.dtype) -> float:
        a, w = x.to(dtype), weight.to(dtype)
        F.conv2d(a, w, padding=1)
        start = now_s()
        for _ in range(3):
            F.conv2d(a, w, padding=1)
        return now_s() - start

    return seconds(torch.bfloat16) / seconds(torch.float32)
