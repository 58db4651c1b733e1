"""The op table of export: which operation is which kind of layer. Add an operation here; rules are in `export_rules`.

What has the same shape and price as a family's other members needs no code of its own. Dtype overloads and in-place
forms (`add_`) count like the plain form. A copy, a concatenation and a dropout that is switched off count as one
elementwise operation each: they move data.
"""

import operator
from typing import Any

import torch

import accel.spiking.ops  # noqa: F401, registers spikeloom::lif and ::plif

aten, ops = torch.ops.aten, torch.ops


def _all(*names: str) -> frozenset[Any]:
    """Every overload of the aten operations called `names`, and of their in-place forms."""
    packets = [getattr(aten, form) for name in names for form in (name, f"{name}_") if hasattr(aten, form)]
    return frozenset(getattr(packet, overload) for packet in packets for overload in packet.overloads())


# Reshapes and casts move no data that a chip would pay for.
VIEWS = _all(
    "view", "view_as", "reshape", "reshape_as", "permute", "transpose", "t", "numpy_T", "mT", "swapaxes", "swapdims",
    "movedim", "flatten", "unflatten", "squeeze", "unsqueeze", "select", "slice", "narrow", "split",
    "split_with_sizes", "tensor_split", "chunk", "unbind", "contiguous", "expand", "expand_as", "detach", "alias",
    "lift_fresh", "lift_fresh_copy", "diagonal", "to", "_to_copy", "type_as", "unfold",
)  # fmt: skip
ELEMENTWISE = _all(
    "add", "sub", "rsub", "mul", "div", "neg", "reciprocal", "pow", "square", "sqrt", "rsqrt", "exp", "log", "log1p",
    "abs", "sign", "floor", "ceil", "round", "remainder", "fmod", "clamp", "clamp_min", "clamp_max", "maximum",
    "minimum", "sin", "cos", "erf", "lerp", "addcmul",
    "relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "sigmoid",
    "hardsigmoid", "hardswish", "hardtanh", "tanh", "log_sigmoid", "softmax", "_softmax", "log_softmax",
    "_log_softmax", "glu", "heaviside", "threshold",
    "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not", "logical_xor", "bitwise_and",
    "bitwise_or", "bitwise_not", "bitwise_xor", "__and__", "__or__", "__xor__", "isnan", "isinf", "isfinite", "where",
    "masked_fill", "tril", "triu",
    "mean", "sum", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "var", "std", "prod", "cumsum",
    "logsumexp", "norm", "linalg_vector_norm", "topk", "sort", "argsort",
    "dropout", "feature_dropout", "alpha_dropout", "stack", "cat", "concat", "clone", "copy", "pad",
    "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "repeat",
    "repeat_interleave", "roll", "flip", "tile", "index", "index_select", "gather", "take_along_dim", "masked_select",
    "index_add", "scatter", "scatter_add", "one_hot",
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_linear1d", "pixel_shuffle",
)  # fmt: skip
LINEAR = _all("linear")
ADDMM = _all("addmm")
CONVOLUTIONS = _all("conv1d", "conv2d")
PRODUCTS = _all("matmul", "mm", "bmm")
EINSUMS = _all("einsum")
ATTENTIONS = _all("scaled_dot_product_attention")
NORMS = _all(
    "batch_norm", "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training", "layer_norm",
    "native_layer_norm", "group_norm", "instance_norm", "rms_norm",
)  # fmt: skip
# Statistics for each row that is normalised, rather than for each channel of the batch.
ROW_NORMS = _all("layer_norm", "native_layer_norm", "group_norm", "instance_norm", "rms_norm")
GATHERS = _all("embedding")
NEURONS = frozenset({ops.spikeloom.lif.default, ops.spikeloom.plif.default})
# Sizes, bounds and fresh constants (a neuron's first membrane): nothing flows through them.
BOOKKEEPING = frozenset({operator.getitem}) | _all(
    "sym_size", "sym_numel", "sym_stride", "_assert_tensor_metadata", "_assert_scalar", "_assert_async", "full_like",
    "zeros_like", "ones_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty", "item",
    "_local_scalar_dense", "is_nonzero",
)  # fmt: skip
