"""The verbs of the command line: each wires a domain to the accelerator. The only room that knows Hydra."""
