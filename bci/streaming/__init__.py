"""EEG as it arrives: a recording replayed over the lab streaming layer, and a decoder of sliding windows."""
