"""A model as it was: what an export touches in the caller's model is put back, also after a failure.

A trace runs in evaluation mode, runs the model's own Python, and neurons of other libraries keep their membranes as
plain attributes of a module, which a trace replaces by tensors without data. All of it is undone: modes, attributes,
entries and contents of buffers, and the state of the random numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_TABLES = ("_parameters", "_buffers", "_modules")


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Leave the modules, their modes, attributes and buffers as they are now when the block ends."""
    modules = list(model.modules())
    attributes = [dict(vars(m)) for m in modules]
    tables = [{name: dict(vars(m)[name]) for name in _TABLES} for m in modules]
    contents = [(b, b.clone()) for b in model.buffers()]
    random = torch.get_rng_state()
    try:
        yield
    finally:
        for module, before, inside in zip(modules, attributes, tables, strict=True):
            vars(module).clear()
            vars(module).update(before)
            for name, entries in inside.items():
                table = vars(module)[name]
                table.clear()
                table.update(entries)
        with torch.no_grad():
            for buffer, content in contents:
                buffer.copy_(content)
        torch.set_rng_state(random)
