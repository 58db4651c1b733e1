"""MACs and parameters of strangers' networks from the command line, as a person counts them on paper."""

from pathlib import Path

import pytest

from spikeloom.accel.trainer.workload import Workload
from spikeloom.benchmarks.strangers import MOBILENET
from spikeloom.pipelines.cli import main

STRANGERS = Path(__file__).parents[2] / "benchmarks" / "strangers.py"


def resnet_macs(depths: tuple[int, ...], side: int, bottleneck: bool) -> int:
    """Of one picture of side x side."""
    at, n = side // 4, 64
    macs = (side // 2) ** 2 * 64 * 3 * 49
    for stage, depth in enumerate(depths):
        w = 64 * 2**stage
        wide = 4 * w if bottleneck else w
        for block in range(depth):
            before, at = at, at // 2 if stage and not block else at
            if bottleneck:
                macs += before**2 * n * w + at**2 * (9 * w * w + w * wide)
            else:
                macs += at**2 * (9 * n * w + 9 * w * w)
            macs += at**2 * n * wide if not block and n != wide else 0
            n = wide
    return macs + n * 1000


def mobilenet_macs(side: int) -> int:
    at = side // 2
    macs = at**2 * 32 * 27
    n = 32
    for wide, stride in MOBILENET:
        at //= stride
        macs += at**2 * (9 * n + n * wide)
        n = wide
    return macs + n * 1000


def bert_parameters(v: int, positions: int, d: int, f: int, n_layers: int) -> int:
    layer = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d
    return (v + positions + 2) * d + 2 * d + n_layers * layer + d * d + d


def bert_macs(n: int, d: int, f: int, n_layers: int) -> int:
    return n_layers * n * (4 * d * d + 2 * d * f + 2 * n * d) + d * d


def gpt2_parameters(v: int, positions: int, d: int, n_layers: int) -> int:
    return (v + positions) * d + n_layers * (12 * d * d + 13 * d) + 2 * d


def gpt2_macs(n: int, v: int, d: int, n_layers: int) -> int:
    return n * (n_layers * (12 * d * d + 2 * n * d) + d * v)


def bart_parameters(v: int, positions: int, d: int, f: int, n_layers: int) -> int:
    attention, feed = 4 * (d * d + d), 2 * d * f + f + d
    layers = n_layers * ((attention + feed + 4 * d) + (2 * attention + feed + 6 * d))
    return v * d + 2 * (positions + 2) * d + 4 * d + layers


def bart_macs(n: int, s: int, v: int, d: int, f: int, n_layers: int) -> int:
    reads = n * (4 * d * d + 2 * d * f + 2 * n * d)
    writes = s * (6 * d * d + 2 * d * f + 2 * s * d + 2 * n * d) + n * 2 * d * d  # keys and values of what was read
    return n_layers * (reads + writes) + s * d * v


def test_the_formulas_give_the_published_figures() -> None:
    assert resnet_macs((2, 2, 2, 2), 224, False) == 1_814_073_344
    assert resnet_macs((3, 4, 6, 3), 224, True) == 4_089_184_256
    assert mobilenet_macs(224) == 568_740_352
    assert bert_parameters(30522, 512, 768, 3072, 12) == 109_482_240
    assert gpt2_parameters(50257, 1024, 768, 12) == 124_439_808
    assert bart_parameters(50265, 1024, 768, 3072, 6) == 139_420_416


NETWORKS = {  # name -> batch, input, axes, MACs of a sample, parameters
    "resnet18": (1, "1x3x224x224", "BCHW", resnet_macs((2, 2, 2, 2), 224, False), 11_689_512),
    "resnet50": (1, "1x3x224x224", "BCHW", resnet_macs((3, 4, 6, 3), 224, True), 25_557_032),
    "mobilenet": (1, "1x3x224x224", "BCHW", mobilenet_macs(224), 4_231_976),
    "bert": (2, "2x64:int30522", "BT", bert_macs(64, 256, 1024, 4), bert_parameters(30522, 512, 256, 1024, 4)),
    "gpt2": (2, "2x64:int5000", "BT", gpt2_macs(64, 5000, 128, 3), gpt2_parameters(5000, 256, 128, 3)),
    "bart": (2, "2x48:int5000+2x32:int5000", "BT", bart_macs(48, 32, 5000, 128, 256, 2),
             bart_parameters(5000, 128, 128, 256, 2)),
}  # fmt: skip


def counted(name: str, shape: str, axes: str, folder: Path) -> tuple[int, int, str]:
    """MACs of the forward pass and parameters that `spikeloom export` finds, and its balance."""
    main(["export", f"model={STRANGERS}:{name}", f"input={shape}", f"axes={axes}", f"out={folder}"])
    workload = Workload.from_json(folder / "workload.json")
    macs, owned = sum(x.macs_forward for x in workload.layers), sum(x.parameters for x in workload.layers)
    return macs, owned, workload.source["balance"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_command_line_counts_what_a_person_counts(name: str, tmp_path: Path) -> None:
    batch, shape, axes, macs, parameters = NETWORKS[name]
    found, owned, balance = counted(name, shape, axes, tmp_path)
    assert (found, owned) == (batch * macs, parameters)
    assert balance.startswith(f"{parameters:,} of {parameters:,} parameters owned")
    main(["simulate", f"workload={tmp_path / 'workload.json'}", "gpu=null", "what_if=false", "uncertainty=false"])
