"""How every model is trained: fit, Lightning module, callbacks, optimiser, run directory."""
