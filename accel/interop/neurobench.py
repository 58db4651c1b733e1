"""Counts of a run under the names that NeuroBench publishes (Yik et al., Nature Communications 16:1545, 2025).

    Footprint            bytes of all parameters and buffers; weights that are 0 included
    ParameterCount       trainable numbers
    ConnectionSparsity   share of weights that are 0, in the layers of synapses (biases and norms left out)
    ActivationSparsity   share of neuron outputs that are 0, over all neurons, steps and samples
    SynapticOperations   per sample, in layers of synapses, norms and pooling left out:
      Effective_MACs       analog input: inputs that are not 0 * weights that are not 0
      Effective_ACs        whole-number input: events * weights that are not 0
      Dense                every input * every weight, as on hardware that skips nothing

Two deviations. NeuroBench bills an input outside {-1, 0, 1} as a MAC; here a whole number n is n accumulates, since n
events on an integer residual stream are n additions and no product. And NeuroBench decides batch by batch; here a layer
accumulates only if everything it was given is whole. Taps of a convolution that reach outside its input are counted
nowhere, as there. Attention, rotations and gates have no weights and appear in neither.
"""

from typing import Any

from torch import nn

from spikeloom.accel.analysis.operations import CONNECTIONS, OperationCounter


def neurobench_metrics(model: nn.Module, counter: OperationCounter, n_samples: int) -> dict[str, Any]:
    """NeuroBench's metrics of `model` from the `counter` that watched it process `n_samples` samples.

    Raises ValueError when the counter saw nothing.
    """
    if n_samples < 1 or not counter.connections:
        raise ValueError(f"got {n_samples} samples and {len(counter.connections)} layers; run at least one sample")
    weights = [m.weight for m in model.modules() if isinstance(m, CONNECTIONS)]
    zeros = sum(w.numel() - int(w.count_nonzero()) for w in weights)
    layers, populations = counter.connections.values(), counter.activations.values()
    places = sum(p.places for p in populations)
    return {
        "Footprint": sum(t.nbytes for t in (*model.parameters(), *model.buffers())),
        "ParameterCount": sum(p.numel() for p in model.parameters()),
        "ConnectionSparsity": zeros / sum(w.numel() for w in weights),
        "ActivationSparsity": 1 - sum(p.active for p in populations) / places if places else None,
        "SynapticOperations": {
            "Effective_MACs": sum(layer.active for layer in layers if not layer.integer) / n_samples,
            "Effective_ACs": sum(layer.ac for layer in layers) / n_samples,
            "Dense": sum(layer.dense for layer in layers) / n_samples,
        },
    }
