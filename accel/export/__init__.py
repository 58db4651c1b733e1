"""From a torch module to a program and a torch-free workload: the trace, the operator table, the rules."""
