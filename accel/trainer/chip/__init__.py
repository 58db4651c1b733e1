"""The chip as checked, frozen numbers with their sources. Nothing here computes a cost."""
