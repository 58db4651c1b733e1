"""The same training step on a GPU, to compare with: kernels, DRAM bytes, Nsight Compute counters."""
