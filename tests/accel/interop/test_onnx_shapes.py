"""ONNX files of other tools are costed from their shapes: MACs and weights counted by hand."""

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs pip install 'spikeloom[onnx]'")

from spikeloom.accel.interop.onnx_shapes import OnnxError, onnx_workload  # noqa: E402
from spikeloom.accel.trainer.schedule.simulator import simulate  # noqa: E402
from spikeloom.pipelines.config.chips import load_chip  # noqa: E402


def written(path: Path, nodes: list[tuple], weights: dict[str, tuple[int, ...]], shape: list, out: int) -> Path:  # type: ignore[type-arg]
    """A graph whose nodes are (op, inputs, output, attributes)."""
    h, t = onnx.helper, onnx.TensorProto
    made = [h.make_node(op, inputs, [output], **attributes) for op, inputs, output, attributes in nodes]
    initializers = [
        h.make_tensor(name, t.INT64, [len(size)], size)
        if name.startswith("sizes")
        else h.make_tensor(name, t.FLOAT, size, np.zeros(size, np.float32).flatten())
        for name, size in weights.items()
    ]
    graph = h.make_graph(
        made, "g", [h.make_tensor_value_info("x", t.FLOAT, shape)],
        [h.make_tensor_value_info(made[-1].output[0], t.FLOAT, [None] * out)], initializers,
    )  # fmt: skip
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)]), str(path))
    return path


def test_a_cnn_has_the_macs_of_its_shapes(tmp_path: Path) -> None:
    nodes = [
        ("Conv", ["x", "w", "b"], "c", {"pads": [1, 1, 1, 1], "strides": [2, 2], "kernel_shape": [3, 3]}),
        ("Relu", ["c"], "r", {}),
        ("Conv", ["r", "d"], "e", {"group": 8, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("ConvTranspose", ["e", "u"], "t", {"strides": [2, 2], "kernel_shape": [2, 2]}),
        ("GlobalAveragePool", ["t"], "p", {}),
        ("Flatten", ["p"], "f", {}),
        ("Gemm", ["f", "g", "h"], "y", {"transB": 1}),
    ]
    weights = {"w": (8, 3, 3, 3), "b": (8,), "d": (8, 1, 3, 3), "u": (8, 4, 2, 2), "g": (10, 4), "h": (10,)}
    path = written(tmp_path / "cnn.onnx", nodes, weights, ["n", 3, 12, 12], 2)
    with pytest.raises(OnnxError, match=r"cnn\.onnx: input 'x' has an open shape; give input=1x3x12x12, with "):
        onnx_workload(path)
    workload = onnx_workload(path, shapes="4x3x12x12", axes="BCHW")
    macs = [layer.macs_forward for layer in workload.layers if layer.kind == "gemm_weight"]
    assert macs == [4 * 36 * 8 * 27, 4 * 36 * 8 * 9, 4 * 36 * 8 * 4 * 4, 4 * 40]
    assert sum(layer.parameters for layer in workload.layers) == 216 + 8 + 72 + 128 + 40 + 10
    first, second = [layer for layer in workload.layers if layer.kind == "gemm_weight"][:2]
    assert first.macs_backward == 0 and second.macs_backward == second.macs_forward
    assert simulate(workload, load_chip("cacti28")).total.true_macs > 0


def test_attention_multiplies_activations(tmp_path: Path) -> None:
    nodes = [
        ("MatMul", ["x", "q"], "a", {}), ("MatMul", ["x", "k"], "b", {}),
        ("Transpose", ["b"], "bt", {"perm": [0, 2, 1]}), ("MatMul", ["a", "bt"], "s", {}),
        ("Softmax", ["s"], "m", {}), ("MatMul", ["m", "x"], "y", {}),
    ]  # fmt: skip
    path = written(tmp_path / "a.onnx", nodes, {"q": (16, 16), "k": (16, 16)}, [2, 5, 16], 3)
    layers = onnx_workload(path).layers
    products = [layer for layer in layers if layer.kind == "gemm_activation"]
    assert [layer.macs_forward for layer in products] == [2 * 5 * 5 * 16] * 2
    assert [layer.macs_backward for layer in products] == [2 * 2 * 5 * 5 * 16, 2 * 5 * 5 * 16]  # x wants no gradient
    assert sum(layer.macs_forward for layer in layers if layer.kind == "gemm_weight") == 2 * (2 * 5 * 256)


def test_what_has_no_rule_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "odd.onnx", [("Det", ["x"], "y", {})], {}, [2, 3, 3], 1)
    with pytest.raises(OnnxError, match=r"odd\.onnx: .*Det"):
        onnx_workload(path)
    assert onnx_workload(path, strict=False).unsupported[0].op == "Det"
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x07garbage" * 9)
    with pytest.raises(OnnxError, match=r"bad\.onnx: "):
        onnx_workload(tmp_path / "bad.onnx")
    with pytest.raises(OnnxError, match="takes 1 inputs, got 2 shapes"):
        onnx_workload(path, shapes="2x3x3+1x1")
