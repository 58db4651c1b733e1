"""A recording of an event camera as the frames that a network sees, and what a small network makes of it."""

from pathlib import Path

import numpy as np
import torch

import spikeloom
from spikeloom.vision.datasets.readers import read_events
from spikeloom.vision.transforms.frames import frames_by_number

rng = np.random.default_rng(0)
n = 20_000  # a bar that moves from left to right in a tenth of a second
t = np.sort(rng.integers(0, 100_000, n))
x = np.clip(t * 34 // 100_000 + rng.integers(-2, 3, n), 0, 33)
np.save("bar.npy", np.stack([t, x, rng.integers(0, 34, n), rng.integers(0, 2, n)], axis=1))

recording = read_events(Path("bar.npy"))
frames = frames_by_number(recording.events, 4, recording.sensor)
print(f"{len(recording.events):,} events on a sensor of {recording.sensor}, frames {frames.shape}")
model = spikeloom.create_model("spiking_transformer", n_inputs=2, n_outputs=11, T=4, widths=[16], depths=[1], heads=2)
print("logits", model(torch.from_numpy(np.asarray(frames, np.float32))[:, None]).shape)
