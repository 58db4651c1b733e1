"""From a sound file to a word, and to the cost of the same network on a chip.

A model of the installation classifies a recording; then one training step of that network is priced. The file here is a
hummed vowel and no digit, so its label means nothing: give a recording of your own.
"""

import numpy as np
import soundfile
import torch

import spikeloom

rate_hz = 8000
seconds = np.arange(rate_hz) / rate_hz
vowel = sum(np.sin(2 * np.pi * f * seconds) / n for n, f in enumerate((180, 360, 720, 1100), 1))
soundfile.write("word.wav", (0.2 * vowel * np.hanning(rate_hz)).astype(np.float32), rate_hz)

recognise = spikeloom.pipeline("builtin:fsdd")
found = recognise("word.wav")
print(f"most probable digit: {found.label}, probability {found.probability:.2f}")

model = recognise.trained.model
frames = torch.rand(50, 4, recognise.trained.features.n_mels)  # 50 steps, 4 clips: time first
cost = spikeloom.cost(model, frames, axes="TBN", chip="neuromc")
print(f"one training step of {sum(p.numel() for p in model.parameters()):,} weights: {cost.energy_mj:.2f} mJ")
