"""RandAugment (Cubuk et al., arXiv 1909.13719) with the increasing magnitudes of common recipes, on whole pictures.

`rand-m9-n1-mstd0.4-inc1` is RandAugment(magnitude=9, layers=1, spread=0.4): `layers` operations drawn with replacement
from fifteen, each applied in half the cases, its magnitude normal around 9 with deviation 0.4, clipped to 0..10. Larger
is always stronger ("inc"). Pictures are uint8 `[H, W, C]`; where a picture is moved, the mean colour fills the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Operation = Callable[[Any, float, int, Any], Any]  # (image, strength 0…1, sign ±1, fill) -> image
STRONGEST = 10.0
APPLIED = 0.5  # of the drawn operations


def _affine(image: Any, matrix: tuple[float, ...], fill: Any) -> Any:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill)


def _enhance(kind: Any) -> Operation:
    return lambda image, s, sign, fill: kind(image).enhance(max(0.1, 1.0 + sign * 0.9 * s))


def _solarize_add(image: Any, s: float, sign: int, fill: Any) -> Any:
    table = [min(255, i + int(110 * s)) if i < 128 else i for i in range(256)]
    return image.point(table * len(image.getbands()))


OPERATIONS: dict[str, Operation] = {
    "auto contrast": lambda image, s, sign, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, s, sign, fill: ImageOps.equalize(image),
    "invert": lambda image, s, sign, fill: ImageOps.invert(image),
    "rotate": lambda image, s, sign, fill: image.rotate(sign * 30.0 * s, Image.Resampling.BILINEAR, fillcolor=fill),
    "posterize": lambda image, s, sign, fill: ImageOps.posterize(image, max(1, 4 - int(4 * s))),
    "solarize": lambda image, s, sign, fill: ImageOps.solarize(image, 256 - int(256 * s)),
    "solarize add": _solarize_add,
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear x": lambda image, s, sign, fill: _affine(image, (1, sign * 0.3 * s, 0, 0, 1, 0), fill),
    "shear y": lambda image, s, sign, fill: _affine(image, (1, 0, 0, sign * 0.3 * s, 1, 0), fill),
    "translate x": lambda image, s, sign, fill: _affine(image, (1, 0, sign * 0.45 * s * image.width, 0, 1, 0), fill),
    "translate y": lambda image, s, sign, fill: _affine(image, (1, 0, 0, 0, 1, sign * 0.45 * s * image.height), fill),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """See the module. fill: colour 0..255 of each channel."""

    magnitude: float
    layers: int
    spread: float
    fill: tuple[int, ...]

    def __call__(self, picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """uint8 `[H, W, C]` -> the same, changed by what `generator` draws."""
        grey = picture.shape[2] == 1
        image: Any = Image.fromarray(picture[:, :, 0] if grey else picture)
        fill = self.fill[0] if grey else self.fill
        for name in generator.choice(list(OPERATIONS), self.layers):
            applied, sign = generator.random() < APPLIED, 1 if generator.random() < 0.5 else -1
            strength = float(np.clip(generator.normal(self.magnitude, self.spread), 0, STRONGEST)) / STRONGEST
            if applied:
                image = OPERATIONS[name](image, strength, sign, fill)
        made = np.asarray(image)
        return made[:, :, None] if grey else made
