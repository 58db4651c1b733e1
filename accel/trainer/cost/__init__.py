"""What a layer costs: cycles, bytes, energy, the network on chip, and how sure the figures are."""
