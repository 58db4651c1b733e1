"""The op table of export: which operation is which kind of layer. Add an operation here; rules are in `rules`.

What has the same shape and price as a family's other members needs no code of its own. Dtype overloads and in-place
forms (`add_`) count like the plain form. A copy, a concatenation and a dropout that is switched off count as one
elementwise operation each: they move data.
"""

import operator
from typing import Any

import torch

import spikeloom.accel.spiking.ops  # noqa: F401, registers spikeloom::lif and ::plif

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
    "lift_fresh", "lift_fresh_copy", "diagonal", "to", "_to_copy", "type_as", "unfold", "_unsafe_view",
    "_reshape_alias", "ravel", "broadcast_to", "broadcast_tensors", "hsplit", "vsplit", "dsplit", "unsafe_chunk",
    "unsafe_split", "unsafe_split_with_sizes", "squeeze_copy", "view_copy", "view_as_real", "view_as_complex", "real",
    "adjoint", "mH", "moveaxis", "meshgrid",
)  # fmt: skip
ELEMENTWISE = _all(
    "add", "sub", "rsub", "mul", "div", "neg", "reciprocal", "pow", "square", "sqrt", "rsqrt", "exp", "log", "log1p",
    "abs", "sign", "floor", "ceil", "round", "remainder", "fmod", "clamp", "clamp_min", "clamp_max", "maximum",
    "minimum", "sin", "cos", "erf", "lerp", "addcmul", "addcdiv", "divide", "true_divide", "multiply", "subtract",
    "floor_divide", "float_power", "negative", "absolute", "clip", "trunc", "frac", "log2", "log10", "exp2", "expm1",
    "erfc", "tan", "sinh", "cosh", "asin", "acos", "atan", "atan2", "logaddexp", "logit", "nan_to_num", "sinc",
    "relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "sigmoid",
    "hardsigmoid", "hardswish", "hardtanh", "tanh", "log_sigmoid", "softmax", "_softmax", "log_softmax",
    "_log_softmax", "glu", "heaviside", "threshold", "hardshrink", "softshrink", "rrelu", "rrelu_with_noise",
    "eq", "not_equal", "greater", "greater_equal", "less", "less_equal", "isclose",
    "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not", "logical_xor", "bitwise_and",
    "bitwise_or", "bitwise_not", "bitwise_xor", "__and__", "__or__", "__xor__", "isnan", "isinf", "isfinite", "where",
    "masked_fill", "tril", "triu",
    "mean", "sum", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "var", "std", "prod", "cumsum",
    "logsumexp", "norm", "linalg_vector_norm", "linalg_norm", "topk", "sort", "argsort", "cumprod", "cummax", "cummin",
    "var_mean", "std_mean", "aminmax", "median", "kthvalue", "nansum", "nanmean", "count_nonzero", "diff",
    "cosine_similarity", "_weight_norm", "_weight_norm_interface",
    "cross_entropy_loss", "nll_loss", "nll_loss_nd", "nll_loss2d", "mse_loss", "l1_loss", "smooth_l1_loss",
    "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div", "bernoulli", "rand_like",
    "randn_like",
    "dropout", "feature_dropout", "alpha_dropout", "stack", "cat", "concat", "clone", "copy", "pad",
    "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "repeat",
    "repeat_interleave", "roll", "flip", "tile", "index", "index_select", "gather", "take_along_dim", "masked_select",
    "index_add", "scatter", "scatter_add", "one_hot", "index_put", "index_copy", "index_fill", "select_scatter",
    "slice_scatter", "masked_scatter", "scatter_reduce", "fill", "zero", "hstack", "vstack", "dstack", "column_stack",
    "rot90", "channel_shuffle",
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d",
    "upsample_trilinear3d", "upsample_bicubic2d", "grid_sampler", "pixel_shuffle", "pixel_unshuffle", "im2col",
    "col2im", "reflection_pad3d", "replication_pad3d", "max_unpool2d", "fractional_max_pool2d",
)  # fmt: skip
LINEAR = _all("linear")
ADDMM = _all("addmm", "addmv")
CONVOLUTIONS = _all("conv1d", "conv2d", "conv3d")
TRANSPOSED = _all("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
PRODUCTS = _all("matmul", "mm", "bmm", "mv", "dot", "linalg_matmul")
BIASED_PRODUCTS = _all("baddbmm")
BILINEAR = _all("bilinear")
RECURRENT = _all("lstm", "gru", "rnn_tanh", "rnn_relu")
CELLS = _all("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
EINSUMS = _all("einsum")
ATTENTIONS = _all("scaled_dot_product_attention")
NORMS = _all(
    "batch_norm", "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training", "layer_norm",
    "native_layer_norm", "group_norm", "instance_norm", "rms_norm",
)  # fmt: skip
GATHERS = _all("embedding")
NEURONS = frozenset({ops.spikeloom.lif.default, ops.spikeloom.plif.default})
# What passes no gradient on: the loss does not reach what lies behind.
CUTS = _all("detach", "argmax", "argmin", "argsort", "one_hot", "bincount")
# A spike written by hand, u >= threshold: its derivative is whatever surrogate the training puts in its place.
THRESHOLDS = _all("ge", "gt", "greater", "greater_equal", "heaviside")
# A comparison that only chooses between values, given in these places, is none.
CHOICES = {**dict.fromkeys(_all("where"), (0, (1, 2))), **dict.fromkeys(_all("masked_fill"), (1, (0,)))}
# Sizes, bounds and fresh constants (a neuron's first membrane): nothing flows through them.
BOOKKEEPING = frozenset({operator.getitem}) | _all(
    "sym_size", "sym_numel", "sym_stride", "_assert_tensor_metadata", "_assert_scalar", "_assert_async", "full_like",
    "zeros_like", "ones_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty", "item",
    "_local_scalar_dense", "is_nonzero", "sym_constrain_range", "sym_constrain_range_for_size", "empty", "zeros",
    "ones", "full", "arange", "scalar_tensor", "eye", "linspace",
)  # fmt: skip
