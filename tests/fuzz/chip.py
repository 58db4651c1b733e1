"""Workloads, chips, GPUs, counters, networks of other tools, binary-stochastic networks."""

import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from spikeloom.accel.export.program import load_program
from spikeloom.accel.interop.nir_network import read_nir
from spikeloom.accel.interop.onnx import OnnxRunner, write_onnx
from spikeloom.accel.interop.onnx_shapes import onnx_workload
from spikeloom.accel.learning.stochastic.device_fit import PulseTrace, read_trace
from spikeloom.accel.learning.stochastic.devices import DEVICES
from spikeloom.accel.learning.stochastic.energy import EnergyConstants
from spikeloom.accel.learning.stochastic.files import load_checkpoint, load_network, save_checkpoint, save_network
from spikeloom.accel.learning.stochastic.network import StochasticConfig
from spikeloom.accel.trainer.baseline.nsight import METRICS, read_counters
from spikeloom.accel.trainer.conformance import oracle_rows
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Workload
from spikeloom.pipelines.config.chips import load_chip, load_gpu
from spikeloom.pipelines.export.stochastic import counted_pulses
from spikeloom.pipelines.export.user_model import read_inputs
from spikeloom.pipelines.training.stochastic import with_device
from tests.accel.interop.networks import everything, exported
from tests.accel.trainer.networks import small_network
from tests.fuzz.parser import OneFile, Parser, files, of_one_file
from tests.fuzz.vision import npy, npz

CHIP = load_chip("neuromc")


def preset(kind: str, *names: str) -> list[bytes]:
    return [(resources.files("spikeloom.conf") / kind / f"{name}.yaml").read_bytes() for name in names]


def chips() -> list[bytes]:
    return [*preset("chips", "neuromc", "cacti28"), b"base: neuromc.yaml\nname: mine\n"]


def read_workload(path: Path) -> Any:
    return simulate(Workload.from_json(path), CHIP)


def is_priced(result: Any) -> None:
    json.dumps(asdict(result.total), allow_nan=False)


def counters() -> list[bytes]:
    rows = "".join(f'"{i}","k","{m}","Kbyte","1,{i}00.5"\n' for i in range(3) for m in METRICS)
    return [b'==PROF== x\n"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n' + rows.encode()]


def layer_energies() -> list[bytes]:
    header = "phase,C,K,OY,OX,FY,FX,author_compute_pj,author_conv_memory_pj,author_total_pj\n"
    return [(header + "".join(f"{p},4,8,6,6,3,3,10.5,3e3,40\n" for p in ("FE", "BE", "WE"))).encode()]


def nir_files(folder: Path) -> None:
    from spikeloom.accel.interop.nir import write_nir

    model, x = everything()
    (folder / "0").mkdir()
    write_nir(exported(model, x), (x,), folder / "0" / "a.nir", dt_s=1e-3)


def run_nir(path: Path) -> Any:
    network = read_nir(path)
    with torch.no_grad():
        return network(torch.ones(2, 1, 2, 8, 8))


def onnx_files(folder: Path) -> None:
    from spikeloom.accel.spiking.functional import LIFParameters
    from spikeloom.accel.spiking.neuron import LIF

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.lif = torch.nn.Linear(6, 4), LIF(LIFParameters())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lif(self.linear(x))[0]

    (folder / "0").mkdir()
    write_onnx(exported(Small(), torch.rand(5, 3, 6)), folder / "0" / "a.onnx")


def onnx_shapes(folder: Path) -> None:
    from tests.accel.interop.test_onnx_shapes import written

    (folder / "0").mkdir()
    nodes = [
        ("Conv", ["x", "w", "b"], "c", {"pads": [1, 1, 1, 1], "strides": [2, 2], "kernel_shape": [3, 3]}),
        ("Relu", ["c"], "r", {}), ("GlobalAveragePool", ["r"], "p", {}), ("Flatten", ["p"], "f", {}),
        ("Gemm", ["f", "g", "h"], "y", {"transB": 1}),
    ]  # fmt: skip
    written(folder / "0" / "a.onnx", nodes, {"w": (8, 3, 3, 3), "b": (8,), "g": (10, 8), "h": (10,)}, ["n", 3, 8, 8], 2)


def program(folder: Path) -> None:
    (folder / "0").mkdir()
    torch.export.save(torch.export.export(torch.nn.Linear(3, 2), (torch.rand(4, 3),)), folder / "0" / "a.pt2")


STOCHASTIC = StochasticConfig(hidden=[5])


def stochastic_network(folder: Path) -> None:
    network = STOCHASTIC.build((1, 4, 4), 3)
    (folder / "0").mkdir()
    synapses = STOCHASTIC.synapses(network, 8, torch.Generator().manual_seed(0))
    save_network(folder / "0", STOCHASTIC, (1, 4, 4), ("a", "b", "c"), 8, synapses)


def stochastic_checkpoint(folder: Path) -> None:
    (folder / "0").mkdir()
    generator = torch.Generator().manual_seed(0)
    synapses = STOCHASTIC.synapses(STOCHASTIC.build((1, 4, 4), 3), 8, generator)
    save_checkpoint(folder / "0" / "last.safetensors", synapses, generator, [{"epoch": 1}])


def read_stochastic_checkpoint(folder: Path) -> Any:
    generator = torch.Generator().manual_seed(0)
    synapses = STOCHASTIC.synapses(STOCHASTIC.build((1, 4, 4), 3), 8, generator)
    return load_checkpoint(folder / "last.safetensors", synapses, generator)


def is_history(result: Any) -> None:
    assert isinstance(result, list) and all(isinstance(row, dict) for row in result)


def is_finite_network(result: Any) -> None:
    for synapses in result[1]:
        for name, tensor in synapses.tensors().items():
            assert torch.isfinite(tensor.float()).all(), f"{name} is not finite"


def read_pulses(folder: Path) -> float | None:
    return counted_pulses(folder, 100)


def is_amount(result: float | None) -> None:
    assert result is None or (np.isfinite(result) and result >= 0)


def is_rows(result: Any) -> None:
    assert result and all(np.isfinite((r.measured, r.expected)).all() for r in result)


TRACE = "device,direction,conductance_siemens\n" + "".join(
    f"{d},{way},{g:g}e-6\n"
    for d in "ab"
    for way, g in (("start", 1), *(("up", 2 + i) for i in range(6)), *(("down", 8 - i) for i in range(6)))
)


def read_device(path: Path) -> StochasticConfig:
    return with_device(StochasticConfig(hidden=[5], weights=str(path)))


def is_trace(result: PulseTrace) -> None:
    assert len(result.way) == len(result.before) == len(result.after) > 0
    assert set(result.way.tolist()) <= {-1, 1} and np.isfinite(result.before).all() and np.isfinite(result.after).all()


STOCHASTIC_FILES = "accel/learning/stochastic/files.py"
ONE_FILE: tuple[OneFile, ...] = (
    ("pulse_trace", files("a.csv", lambda: [TRACE.encode()]), read_trace, is_trace,
     ("accel/learning/stochastic/device_fit.py:_readings",)),
    ("device_yaml", files("a.yaml", lambda: [yaml.safe_dump(asdict(device)).encode() for device in DEVICES.values()]),
     read_device, None, ("pipelines/training/stochastic.py:with_device",)),
    ("workload_json", files("w.json", lambda: [json.dumps(asdict(small_network())).encode()]), read_workload, is_priced,
     ("accel/trainer/workload.py:from_json",)),
    ("chip_yaml", files("chip.yaml", chips), lambda path: load_chip(str(path)), None,
     ("accel/trainer/chip/document.py:read_document",)),
    ("gpu_yaml", files("gpu.yaml", lambda: preset("gpus", "a100_40gb")), lambda path: load_gpu(str(path)), None,
     ("accel/common/files.py:read_yaml", "accel/common/files.py:parse_yaml",
      "accel/trainer/baseline/gpu.py:from_yaml")),
    ("energy_yaml", files("e.yaml", lambda: preset("constants", "stochastic")), EnergyConstants.from_yaml, None,
     ("accel/learning/stochastic/energy.py:from_yaml",)),
    ("nsight_csv", files("c.csv", counters), read_counters, lambda result: is_amount(result.dram_bytes),
     ("accel/trainer/baseline/nsight.py:_rows", "accel/trainer/baseline/nsight.py:read_counters")),
    ("layer_energies_csv", files("o.csv", layer_energies), lambda path: oracle_rows(path, CHIP), is_rows,
     ("accel/trainer/conformance.py:oracle_rows",)),
    ("nir", nir_files, run_nir, None, ("accel/interop/nir_network.py:read_nir",)),
    ("onnx_run", onnx_files, OnnxRunner, None, ("accel/interop/onnx.py:__init__",)),
    ("onnx_shapes", onnx_shapes, lambda path: onnx_workload(path, shapes="4x3x8x8", axes="BCHW"), None,
     ("accel/interop/onnx_shapes.py:_read",)),
    ("exported_program", program, load_program, None, ("accel/export/program.py:load_program",)),
    *(
        (f"inputs_{ending}", files(f"a.{ending}", made), lambda path: read_inputs(str(path), None), None,
         ("pipelines/export/user_model.py:_read_arrays",))
        for ending, made in (("npy", lambda: npy()[1:]), ("npz", npz))
    ),
)  # fmt: skip
PARSERS = [
    *of_one_file(ONE_FILE),
    Parser(
        name="stochastic_network",
        write=stochastic_network,
        read=load_network,
        promise=is_finite_network,
        covers=(f"{STOCHASTIC_FILES}:load_network",),
    ),
    Parser(
        name="stochastic_checkpoint",
        write=stochastic_checkpoint,
        read=read_stochastic_checkpoint,
        promise=is_history,
        covers=(f"{STOCHASTIC_FILES}:load_checkpoint",),
    ),
    Parser(
        name="stochastic_metrics",
        read=read_pulses,
        promise=is_amount,
        write=files("metrics.csv", lambda: [b"epoch,pulses_up,pulses_down,steps\n1,5,6,10\n2,1,2,10\n"]),
        covers=("pipelines/export/stochastic.py:counted_pulses",),
    ),
]
