"""Pictures and event recordings: data sets, transforms, spiking vision transformers, conversion of released weights."""
