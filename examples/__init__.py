"""The experiments of `spikeloom demo`, one file each: a function `tell(config, folder) -> Chapter`."""
