"""From a recording to frames [T, channels]: log-mel, event bins, the cochlea model."""
