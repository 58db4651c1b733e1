"""Pictures from files: class folders, CIFAR (binary and python version), MNIST idx; and the digits of scikit-learn.

Readers return every sample as it is stored, uint8; sizes, normalisation and splits are elsewhere (`frames`, `sources`).
The python version of CIFAR is pickled: it is parsed, not unpickled (`spikeloom.vision.datasets.pickled`).
"""

import gzip
import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeloom.accel.common.files import read_text, require_regular
from spikeloom.vision.datasets.pickled import read_pickle
from spikeloom.vision.datasets.samples import Lazy, Samples

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

log = logging.getLogger("spikeloom")
LARGEST_SIDE = 2**12  # of a picture in an idx file
DEFLATE_RATIO = 1032  # bytes that one byte can unpack to
LARGEST_PIXELS = 2**26  # of a picture; the largest of ImageNet has 61 million
# What PIL's readers of damaged files raise.
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError, EOFError,
    AttributeError, AssertionError, zlib.error, struct.error,
)  # fmt: skip
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGIT_NAMES = tuple("0123456789")
# classes -> split -> files, without the .bin of the binary version
CIFAR_FILES: dict[int, dict[str, tuple[str, ...]]] = {
    10: {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    100: {"train": ("train",), "test": ("test",)},
}
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class ImageFileError(ValueError):
    """A picture file that cannot be used; the message names it, the reason and the remedy."""


def read_image(path: Path, content: bytes | None = None, place: str = "") -> np.ndarray:
    """uint8 `[H, W]` of a grey file, `[H, W, 3]` of any other; of several pages or frames the first.

    16 bits are scaled to 8. What is transparent becomes white, as viewers show it, or black where all ink is white.

    Args:
        path: the file.
        content: of a picture inside the file; None: the file is the picture.
        place: of the picture in the file, for messages.

    Raises:
        ImageFileError: naming the file, the fault and the remedy.
    """
    from PIL import Image

    require_regular(path, "fetch or remove it")
    where = f"{path}{place}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage to what is not a pixel; of many pixels, an error here
            with Image.open(path if content is None else io.BytesIO(content)) as image:
                width, height = image.size
                if width * height > LARGEST_PIXELS:
                    raise Image.DecompressionBombError(
                        f"{width} x {height} pixels, at most {LARGEST_PIXELS:,} are read"
                    )
                deep = image.mode.startswith(("I", "F"))  # PIL clips these at 255 when it converts them
                pixels = np.asarray(image if deep else _opaque(image))
    except FileNotFoundError:
        raise ImageFileError(f"{where}: no such file; check the data set with `spikeloom data check`") from None
    except Image.DecompressionBombError as error:
        raise ImageFileError(f"{where}: {error}; make the picture smaller") from error
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise ImageFileError(f"{where}: not a whole picture ({reason}); fetch or remove it") from error
    return _eight_bits(where, pixels) if deep else pixels


def _opaque(image: "Picture") -> "Picture":
    """The picture in mode L or RGB, on white paper; on black where nothing would be seen on white."""
    from PIL import Image

    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.mode not in ("LA", "PA", "RGBA") and "transparency" not in image.info:
        return image if image.mode == mode else image.convert(mode)
    drawn = image.convert("RGBA")
    white, black = (Image.new("RGBA", image.size, paper) for paper in ("white", "black"))
    seen = Image.alpha_composite(white, drawn).convert(mode)
    unseen = np.asarray(seen).min() == 255 and drawn.getchannel("A").getbbox()
    return Image.alpha_composite(black, drawn).convert(mode) if unseen else seen


def _eight_bits(where: str, pixels: np.ndarray) -> np.ndarray:
    """0..65535 as uint8."""
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f" or low < 0 or high > 65535:
        raise ImageFileError(f"{where}: {pixels.dtype} values {low}..{high}, white unknown; save it with 8 or 16 bits")
    return ((pixels.astype(np.int32) + 128) // 257).astype(np.uint8)


def class_folders(root: Path) -> list[Path]:
    """The folders in `root` that hold pictures, sorted; hidden ones are left out."""
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    return [folder for folder in folders if any(f.suffix.lower() in SUFFIXES for f in folder.iterdir())]


def read_class_folders(root: Path, class_names: Sequence[str] | None = None) -> Samples:
    """`root/CLASS/*.jpg|png|…`, classes in the order of their names or of `class_names`; says what else lies there.

    Raises FileNotFoundError for a missing folder, ValueError for no pictures, an empty class, or one not in
    `class_names`.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; give data.root=FOLDER with a folder of pictures for each class")
    folders = class_folders(root)
    if not folders:
        raise ValueError(f"{root} holds no folder with pictures ({', '.join(SUFFIXES)}); lay it out as CLASS/NAME.jpg")
    empty = [f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith(".") and f not in folders]
    if empty:
        raise ValueError(f"{root / empty[0]} holds no picture; remove that folder or fill it")
    names = tuple(class_names) if class_names is not None else tuple(f.name for f in folders)
    if unknown := [f.name for f in folders if f.name not in names]:
        raise ValueError(f"{root / unknown[0]} is none of the classes {', '.join(names)}; remove it")
    called, labels, left = list[str](), list[int](), [f for f in root.iterdir() if f.suffix.lower() in SUFFIXES]
    for folder in folders:
        everything = sorted(folder.iterdir())
        found = [f for f in everything if f.suffix.lower() in SUFFIXES]
        left += [f for f in everything if f.suffix.lower() not in SUFFIXES]
        called += [f"{folder.name}/{f.name}" for f in found]
        labels += [names.index(folder.name)] * len(found)
    if left := sorted(f for f in left if not f.name.startswith(".")):
        shown = ", ".join(str(f.relative_to(root)) for f in left[:5])
        log.warning("%s: %d files are left out, not CLASS/NAME with %s: %s", root, len(left), "|".join(SUFFIXES), shown)
    return Samples(
        content=Lazy(len(called), partial(_read_named, root, called)), labels=np.array(labels, dtype=np.int64),
        names=called, class_names=names,
    )  # fmt: skip


def _read_named(root: Path, names: list[str], index: int) -> np.ndarray:
    return read_image(root / names[index])


# --- CIFAR ----------------------------------------------------------------------------------------------------------


def cifar_folder(root: Path, n_classes: int) -> Path | None:
    """Where the batches of CIFAR lie at or below `root`, or None."""
    first = CIFAR_FILES[n_classes]["train"][0]
    places = [
        root,
        *(root / f"cifar-{n_classes}{name}" for name in ("-batches-bin", "-batches-py", "-binary", "-python")),
    ]
    # `train` may also be a folder of pictures
    return next((p for p in places if any((p / f"{first}{end}").is_file() for end in ("", ".bin"))), None)


def read_cifar(folder: Path, n_classes: int, split: str) -> Samples:
    """One split of CIFAR-10 or CIFAR-100, in either version. Raises ValueError naming a damaged or missing file."""
    pictures, labels = [], []
    for name in CIFAR_FILES[n_classes][split]:
        binary, pickled = folder / f"{name}.bin", folder / name
        if binary.is_file():
            found = _cifar_binary(binary, n_classes)
        elif pickled.is_file():
            found = _cifar_python(pickled, n_classes)
        else:
            raise FileNotFoundError(
                f"no {name} or {name}.bin in {folder}; fetch the whole archive of CIFAR-{n_classes}"
            )
        pictures.append(found[0])
        labels.append(found[1])
    planes = np.concatenate(pictures).reshape(-1, 3, 32, 32)  # R, G, B planes, row by row
    channels_last: Any = planes.transpose(0, 2, 3, 1)
    return Samples(
        content=channels_last, labels=np.concatenate(labels).astype(np.int64),
        names=[f"{split}/{i}" for i in range(len(planes))], class_names=_cifar_names(folder, n_classes),
    )  # fmt: skip


def _cifar_binary(path: Path, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Records of a label (CIFAR-100: a coarse and a fine one) and 3,072 bytes."""
    n_labels = 1 if n_classes == 10 else 2
    raw = np.fromfile(path, dtype=np.uint8)
    record = n_labels + 3072
    if len(raw) == 0 or len(raw) % record:
        raise ImageFileError(f"{path}: {len(raw)} bytes are not whole records of {record}; fetch the archive again")
    rows = raw.reshape(-1, record)
    return rows[:, n_labels:], _checked(rows[:, n_labels - 1], n_classes, path)


def _cifar_python(path: Path, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    batch = read_pickle(path)
    key = "labels" if n_classes == 10 else "fine_labels"
    if not isinstance(batch, dict) or not {"data", key} <= set(batch):
        raise ImageFileError(f"{path}: no `data` and `{key}` in it; fetch the archive of CIFAR-{n_classes} again")
    data, labels = batch["data"], np.asarray(batch[key], dtype=object)  # whatever is in it, as it is
    if labels.ndim != 1 or not all(isinstance(label, int) for label in labels):
        raise ImageFileError(f"{path}: `{key}` is no list of whole numbers; fetch the archive again")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(labels), 3072):
        shape = getattr(data, "shape", type(data).__name__)
        raise ImageFileError(f"{path}: data of shape {shape} for {len(labels)} labels; fetch the archive again")
    return data, _checked(labels, n_classes, path)


def _checked(labels: np.ndarray, n_classes: int, path: Path) -> np.ndarray:
    if not len(labels):
        raise ImageFileError(f"{path}: no sample in it; fetch the archive again")
    if (wrong := (labels < 0) | (labels >= n_classes)).any():
        i = int(wrong.argmax())
        raise ImageFileError(f"{path}: sample {i}: label {labels[i]} of {n_classes} classes; fetch the archive again")
    return labels


def _cifar_names(folder: Path, n_classes: int) -> tuple[str, ...]:
    """From the meta file beside the batches, where there is one."""
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if (folder / name).is_file():
            lines = read_text(folder / name, "fetch the archive again").split()
            if len(lines) == n_classes:
                return tuple(lines)
    for name, key in (("batches.meta", "label_names"), ("meta", "fine_label_names")):
        if (folder / name).is_file():
            meta = read_pickle(folder / name)
            found = meta.get(key, []) if isinstance(meta, dict) else None
            if not isinstance(found, list) or not all(isinstance(n, (bytes, str)) for n in found):
                raise ImageFileError(f"{folder / name}: no list `{key}` of names in it; fetch the archive again")
            if len(found) == n_classes:
                return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in found)
    return CIFAR10_NAMES if n_classes == 10 else tuple(f"class {i}" for i in range(100))


# --- MNIST ----------------------------------------------------------------------------------------------------------


def has_mnist(root: Path) -> bool:
    """Whether idx files of MNIST lie in `root`."""
    return any((root / f"{name}{end}").is_file() for of in MNIST_FILES.values() for name in of for end in ("", ".gz"))


def read_mnist(root: Path, split: str) -> Samples:
    """One split of MNIST, plain or .gz. Raises FileNotFoundError or ImageFileError naming the file."""
    images, labels = (read_idx(root / name) for name in MNIST_FILES[split])
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ImageFileError(
            f"{root}: images {images.shape} and labels {labels.shape} of {split} do not belong together"
        )
    content: Any = images
    labels = _checked(labels, len(DIGIT_NAMES), root / MNIST_FILES[split][1])
    return Samples(
        content=content, labels=labels.astype(np.int64), names=[f"{split}/{i}" for i in range(len(images))],
        class_names=DIGIT_NAMES,
    )  # fmt: skip


def read_idx(path: Path) -> np.ndarray:
    """A uint8 idx file, `path` or `path`.gz: magic 0x000008 and the number of dimensions, big-endian sizes, bytes.

    No more is unpacked than the sizes promise, and they may not promise more than such a file can hold.
    """
    packed = path.with_name(f"{path.name}.gz")
    if not path.is_file() and not packed.is_file():
        raise FileNotFoundError(f"no {path.name} or {path.name}.gz in {path.parent}; fetch MNIST's four idx files")
    zipped = not path.is_file()
    path = packed if zipped else path
    largest = path.stat().st_size * (DEFLATE_RATIO if zipped else 1)
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:3] != b"\0\0\x08" or head[3] not in (1, 3):
                raise ImageFileError(f"{path}, byte 0: magic {head.hex()} is not that of idx bytes; fetch it again")
            n_dims, start = head[3], 4 + 4 * head[3]
            sizes = file.read(4 * n_dims)
            if len(sizes) < 4 * n_dims:
                raise ImageFileError(
                    f"{path}, byte {4 + len(sizes)}: cut off in a header of {start} bytes; fetch it again"
                )
            shape = struct.unpack(f">{n_dims}I", sizes)
            promised = math.prod(shape)
            if not promised:
                raise ImageFileError(f"{path}, byte 4: sizes {shape} leave nothing to read; fetch it again")
            if (n_dims == 3 and max(shape[1:]) > LARGEST_SIDE) or promised > largest:
                raise ImageFileError(f"{path}, byte 4: sizes {shape} are more than this file holds; fetch it again")
            raw = file.read(promised)
            if len(raw) < promised or file.read(1):
                found = f"{len(raw):,}" if len(raw) < promised else f"more than {promised:,}"
                raise ImageFileError(f"{path}, byte {start}: {found} bytes for {shape}; fetch it again")
    except (OSError, EOFError, zlib.error) as error:
        raise ImageFileError(f"{path}: not a whole gzip file ({error}); fetch it again") from error
    return np.frombuffer(raw, dtype=np.uint8).reshape(shape)


# --- the embedded default -------------------------------------------------------------------------------------------


def read_digits() -> Samples:
    """The 1,797 digits of scikit-learn, 8 x 8, values 0..16, no network needed."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return Samples(
        content=found.images.astype(np.uint8), labels=found.target.astype(np.int64),
        names=[f"digit/{i}" for i in range(len(found.target))], class_names=DIGIT_NAMES, full_scale=16.0,
    )  # fmt: skip
