"""Binary-stochastic learning: policies, synapses, memristive devices and arrays, energy."""
