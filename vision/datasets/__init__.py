"""Pictures and event recordings as labelled samples: readers, sources, splits, the frame cache."""
