"""Compiled kernels behind the operators of `accel.spiking.ops`, and the loader that builds them on first use."""
