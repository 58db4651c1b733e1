"""Changes to training samples that keep their meaning, drawn by (seed, epoch, sample) alone.

The same sample looks the same in the same epoch whatever batch it is in, with any number of workers, and after a run
was resumed. Pictures: crop, mirror, RandAugment, erasing. Frames of events: mirror, and one of shear, shift, rotation
and cut-out. Mixing two samples, which needs a batch, is in `spikeloom.vision.transforms.mixing`.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spikeloom.vision.transforms.frames import EventFramesConfig, PixelsConfig, resized
from spikeloom.vision.transforms.mixing import MixingConfig
from spikeloom.vision.transforms.rand_augment import RandAugment


def keyed(seed: int, epoch: int, sample: int, purpose: int = 0) -> np.random.Generator:
    """Random numbers that depend on these four alone (Philox: a counter-based generator)."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, sample, epoch]))


def check_shares(config: Any, *names: str) -> None:
    """Raise ValueError for a key that says how often, or how much, and is no number from 0 to 1."""
    for name in names:
        if not 0 <= (value := getattr(config, name)) <= 1:
            raise ValueError(f"augmentation.{name}={value} must be in [0, 1]")


@dataclass(kw_only=True)
class ImageAugmentationConfig(MixingConfig):
    """crop_padding: pixels of black border of which a crop of the old size keeps a part. crop_scale, crop_ratio: share
    of the area and aspect of a random part that is resized (1, 1: the middle of a square picture, that is all of it).

    flip: how often a picture is mirrored. rand_magnitude (0: none), rand_layers, rand_spread:
    `spikeloom.vision.transforms.rand_augment`.
    erase: how often a rectangle of 2 … 33 % is erased, with 0 (const) or with noise (pixel), after normalisation.
    """

    kind: str = "images"
    crop_padding: int = 0
    crop_scale: list[float] = field(default_factory=lambda: [1.0, 1.0])
    crop_ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    flip: float = 0.0
    rand_magnitude: float = 0.0  # of RandAugment; 0: off
    rand_layers: int = 1  # operations that RandAugment applies to an image
    rand_spread: float = 0.0  # standard deviation of its magnitude
    erase: float = 0.0
    erase_mode: str = "const"  # const (0) or pixel (noise)

    def build(self, features: Any, seed: int) -> "ImageAugmentation":
        if not isinstance(features, PixelsConfig):
            raise ValueError(
                "augmentation of images needs features of pixels; use augmentation=events, or other features"
            )
        if self.erase_mode not in ("const", "pixel"):
            raise ValueError(f"augmentation.erase_mode={self.erase_mode} is unknown; use const or pixel")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"augmentation.crop_scale={self.crop_scale}; use two shares, as [0.08, 1.0]")
        check_shares(self, "flip", "erase")
        for name in ("crop_padding", "rand_magnitude", "rand_layers", "rand_spread"):
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"augmentation.{name}={value}; use 0 for none, or more")
        self.check()
        return ImageAugmentation(self, features, seed)


class ImageAugmentation:
    """(picture, sample, epoch) -> float32 `[C, size, size]`, normalised."""

    def __init__(self, config: ImageAugmentationConfig, features: PixelsConfig, seed: int) -> None:
        self.config, self.features, self.seed = config, features, seed
        fill = tuple(round(min(255.0, mean * 255)) for mean in features.mean)
        self.rand = RandAugment(
            magnitude=config.rand_magnitude, layers=config.rand_layers, spread=config.rand_spread, fill=fill
        )  # fmt: skip

    def __call__(self, picture: np.ndarray, sample: int, epoch: int, full_scale: float = 255.0) -> Tensor:
        config, features = self.config, self.features
        generator = keyed(self.seed, epoch, sample)
        if config.crop_scale[0] < 1:
            picture = random_part(features.coloured(picture), features, config.crop_scale, config.crop_ratio, generator)
        else:
            picture = features.fitted(picture)
        if config.crop_padding:
            picture = shifted_crop(picture, config.crop_padding, generator)
        if generator.random() < config.flip:
            picture = picture[:, ::-1]
        if config.rand_magnitude:
            if full_scale != 255.0:
                raise ValueError(
                    f"RandAugment changes pictures of 0..255, these are 0..{full_scale:g}; use rand_magnitude=0"
                )
            picture = self.rand(np.ascontiguousarray(picture), generator)
        values = features.normalised(picture, full_scale)
        if generator.random() < config.erase:
            values = erased(values, config.erase_mode, generator)
        return values


def random_part(
    picture: np.ndarray, features: PixelsConfig, scale: list[float], ratio: list[float], generator: np.random.Generator
) -> np.ndarray:
    """A part of random area and aspect, resized to size x size; after ten tries that do not fit, the middle."""
    height, width = picture.shape[:2]
    for _ in range(10):
        area = height * width * generator.uniform(scale[0], scale[1])
        aspect = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
            part = np.ascontiguousarray(picture[top : top + h, left : left + w])
            return resized(part, (features.size, features.size), features.interpolation)
    return features.fitted(picture)


def shifted_crop(picture: np.ndarray, padding: int, generator: np.random.Generator) -> np.ndarray:
    """The picture moved by up to `padding` pixels each way, black coming in."""
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((padding, padding), (padding, padding), (0, 0)))
    top, left = generator.integers(0, 2 * padding + 1, size=2)
    return padded[top : top + height, left : left + width]


def erased(values: Tensor, mode: str, generator: np.random.Generator) -> Tensor:
    """`[C, H, W]` with one rectangle of 2 … 33 % of the area, aspect 0.3 … 1/0.3, replaced."""
    channels, height, width = values.shape
    for _ in range(10):
        area = height * width * generator.uniform(0.02, 1 / 3)
        aspect = math.exp(generator.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
            values = values.clone()
            if mode == "const":
                values[:, top : top + h, left : left + w] = 0.0
            else:
                noise = generator.standard_normal((channels, h, w), dtype=np.float32)
                values[:, top : top + h, left : left + w] = torch.from_numpy(noise)
            return values
    return values


# --- frames of events -----------------------------------------------------------------------------------------------

CHANGES = ("none", "shear", "shift", "rotation", "cut-out")


@dataclass(kw_only=True)
class EventAugmentationConfig(MixingConfig):
    """flip: how often a recording is mirrored; a data set that says what its mirror images show gets those labels.

    one_of: draw one of nothing, shear (± `shear`), shift (± `shift_pixels`), rotation (± `rotation_degrees`) and a
    cut-out of `cutout` (from, to) of the area, each equally often. Pixels are moved, never blended: counts stay whole.
    """

    kind: str = "events"
    flip: float = 0.0
    one_of: bool = True
    shear: float = 0.3  # largest shear, either way
    shift_pixels: int = 5  # largest shift, either way
    rotation_degrees: float = 30.0  # largest rotation, either way
    # smallest and largest fraction of the area that is cut out
    cutout: list[float] = field(default_factory=lambda: [0.001, 0.11])

    def build(self, features: Any, seed: int) -> "EventAugmentation":
        if not isinstance(features, EventFramesConfig):
            raise ValueError(
                "augmentation of events needs features of frames; use augmentation=images, or other features"
            )
        check_shares(self, "flip")
        self.check()
        return EventAugmentation(self, seed)


class EventAugmentation:
    """(frames [T, 2, H, W], sample, epoch) -> frames, and whether they were mirrored."""

    def __init__(self, config: EventAugmentationConfig, seed: int) -> None:
        self.config, self.seed = config, seed

    def __call__(self, frames: Tensor, sample: int, epoch: int) -> tuple[Tensor, bool]:
        config, generator = self.config, keyed(self.seed, epoch, sample)
        flipped = bool(generator.random() < config.flip)
        if flipped:
            frames = mirrored(frames)
        if not config.one_of:
            return frames, flipped
        change = CHANGES[int(generator.integers(len(CHANGES)))]
        amount = generator.uniform(-1, 1, size=2)
        if change == "shear":
            frames = moved(frames, [[1, config.shear * amount[0]], [0, 1]])
        elif change == "shift":
            down, right = np.round(config.shift_pixels * amount).astype(int)
            frames = moved(frames, [[1, 0], [0, 1]], (int(down), int(right)))
        elif change == "rotation":
            angle = math.radians(config.rotation_degrees * amount[0])
            frames = moved(frames, [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        elif change == "cut-out":
            frames = cut_out(frames, generator.uniform(config.cutout[0], config.cutout[1]), generator)
        return frames, flipped


def mirrored(frames: Tensor) -> Tensor:
    """Left and right exchanged."""
    return frames.flip(-1)


def moved(frames: Tensor, matrix: list[list[float]], shift: tuple[int, int] = (0, 0)) -> Tensor:
    """Every frame under (x, y) -> matrix (x, y) around the middle, or shifted (down, right); nearest pixels.

    What comes in from outside is empty.
    """
    height, width = frames.shape[-2:]
    to_source = torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64))
    y, x = torch.meshgrid(torch.arange(height) - shift[0], torch.arange(width) - shift[1], indexing="ij")
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    at = (torch.stack((x, y), -1).double() - middle) @ to_source.T + middle
    source = at.round().long()
    inside = (source >= 0).all(-1) & (source[..., 0] < width) & (source[..., 1] < height)
    cell = (source[..., 1] * width + source[..., 0]).where(inside, torch.tensor(0))
    return frames.flatten(-2)[..., cell.flatten()].unflatten(-1, (height, width)) * inside


def cut_out(frames: Tensor, share: float, generator: np.random.Generator) -> Tensor:
    """A square of `share` of the area, somewhere on the sensor, emptied in every frame."""
    height, width = frames.shape[-2:]
    side = max(1, round(math.sqrt(share * height * width)))
    top, left = int(generator.integers(max(1, height - side + 1))), int(generator.integers(max(1, width - side + 1)))
    keep = F.pad(torch.zeros(min(side, height), min(side, width)), (
        left, max(0, width - left - side), top, max(0, height - top - side),
    ), value=1.0)  # fmt: skip
    return frames * keep
