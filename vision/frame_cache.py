"""Frames of event recordings kept on disk, one compressed file a recording, made when first asked for.

The folder's name holds everything that decides a frame (mode, T, remainder, sensor) and an index beside the files says
how many recordings there are and which: a folder of other recordings is refused, never read. Counts are whole numbers.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from accel.files import read_json, whole
from vision.frames import EventFramesConfig
from vision.samples import Samples


class FrameCache:
    """`frames(index)` of a set of recordings, read back where it was made before."""

    def __init__(self, config: EventFramesConfig, samples: Samples) -> None:
        assert samples.sensor is not None
        self.config, self.samples, self.sensor = config, samples, samples.sensor
        self.folder = Path(config.cache) / f"{config.key(samples.sensor)}_{samples.digest()[:12]}"
        index, told = self.folder / "index.json", {"samples": len(samples), "sha256": samples.digest()}
        if index.is_file():
            found = read_json(index, f"delete {self.folder}")
            if found != told:
                n = found.get("samples")
                raise ValueError(f"{self.folder} holds frames of {n} recordings, here are {len(samples)}; delete it")
        else:
            with whole(index) as partial:
                partial.write_text(json.dumps(told), encoding="utf-8")

    def frames(self, index: int) -> Tensor:
        """float32 `[T, 2, H, W]` of recording `index`."""
        path = self.folder / f"{index:06d}.npz"
        if path.is_file():
            try:
                with np.load(path) as kept:
                    made = kept["frames"]
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise ValueError(f"{path} is damaged ({error}); delete {self.folder}") from error
            if made.shape != (self.config.n_frames, 2, *self.sensor):
                raise ValueError(f"{path} holds {made.shape}; delete {self.folder}")
            return torch.from_numpy(made.astype(np.float32))
        frames = self.config.frames(self.samples.content[index], self.sensor)
        with whole(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, frames=frames.numpy().astype(np.uint32))
        return frames
