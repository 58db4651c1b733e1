"""Counts of other published models for the same layers, as closed forms: ZigZag's compulsory bytes and SATA's counts.

Used to compare with, and by nothing that prices a chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from spikeloom.accel.trainer.workload import Layer


def compulsory_words(layer: Layer) -> dict[str, int]:
    """Words of weights, inputs and outputs that a convolution must move for one image and time step: each once. The
    halo of padding counts as input, as in ZigZag."""
    height = (layer.out_height - 1) * layer.stride[0] + (layer.kernel[0] - 1) * layer.dilation[0] + 1
    width = (layer.out_width - 1) * layer.stride[1] + (layer.kernel[1] - 1) * layer.dilation[1] + 1
    return {
        "W": layer.in_channels // layer.groups * layer.out_channels * layer.taps,
        "I": layer.in_channels * height * width * layer.tokens,
        "O": layer.out_channels * layer.positions,
    }


@dataclass(frozen=True, kw_only=True)
class SataCounts:
    """Counts of SATA (arXiv 2204.05422) for one layer: MACs, neuron operations, DRAM and global-buffer words.

    With C inputs, K outputs, R x R kernels, H and E the sides of input and output, T steps, words of b bits (16: a
    word holds b spikes), s and s_du the SPARSITIES of spikes and gradients:

        forward MACs      (1 - s) C R R K E E T        backward and weight-update MACs  (1 - s_du) C R R K H H T
        neuron operations K E E T
        DRAM words        forward W + T (K E E + C H H / b), backward T (K E E + C H H / b), update 2 W
        buffer words      forward twice its DRAM words, backward 7 T K E E + 2 T C H H / b + W
    """

    forward_macs: float
    backward_macs: float
    update_macs: float
    neuron_operations: int
    forward_dram_words: int
    backward_dram_words: int
    update_dram_words: int
    forward_buffer_words: int
    backward_buffer_words: int

    @classmethod
    def of(cls, layer: Layer, spike_sparsity: float = 0.0, du_sparsity: float = 0.0, word_bits: int = 16) -> SataCounts:
        """Counts of a convolution for one image."""
        steps = layer.time_steps
        weights = layer.in_channels // layer.groups * layer.out_channels * layer.taps
        outputs = layer.out_channels * layer.out_height * layer.out_width * layer.tokens
        inputs = layer.in_channels * layer.in_height * layer.in_width * layer.tokens
        wide = weights * layer.in_height * layer.in_width * layer.tokens * steps
        passed = steps * (outputs + ceil(inputs / word_bits))
        forward = weights + passed
        return cls(
            forward_macs=(1 - spike_sparsity) * weights * layer.positions * steps,
            backward_macs=(1 - du_sparsity) * wide,
            update_macs=(1 - du_sparsity) * wide,
            neuron_operations=outputs * steps,
            forward_dram_words=forward,
            backward_dram_words=passed,
            update_dram_words=2 * weights,
            forward_buffer_words=2 * forward,
            backward_buffer_words=7 * steps * outputs + 2 * steps * ceil(inputs / word_bits) + weights,
        )
