"""Pictures from files: class folders, CIFAR (binary and python version), MNIST idx; and the digits of scikit-learn.

Readers return every sample as it is stored, uint8; sizes, normalisation and splits are elsewhere (`frames`, `sources`).
The python version of CIFAR is pickled: it is parsed, not unpickled (`vision.pickled`).
"""

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision.pickled import read_pickle
from vision.samples import Lazy, Samples

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
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


def read_image(path: Path) -> np.ndarray:
    """uint8 `[H, W]` of a grey file, `[H, W, 3]` of any other."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "RGB"):
                image = image.convert("L" if image.mode in ("1", "I;16", "LA") else "RGB")  # type: ignore[assignment]
            return np.asarray(image)
    except FileNotFoundError:
        raise ImageFileError(f"{path}: no such file; check the data set with `spikeloom data check`") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, zlib.error, struct.error) as error:
        raise ImageFileError(f"{path}: not a whole picture ({error}); fetch or remove it") from error


def class_folders(root: Path) -> list[Path]:
    """The folders in `root` that hold pictures, sorted; hidden ones are left out."""
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    return [folder for folder in folders if any(f.suffix.lower() in SUFFIXES for f in folder.iterdir())]


def read_class_folders(root: Path, class_names: Sequence[str] | None = None) -> Samples:
    """`root/CLASS/*.jpg|png|…`, classes in the order of their names or of `class_names`.

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
    files, labels = list[Path](), list[int]()
    for folder in folders:
        found = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
        files += found
        labels += [names.index(folder.name)] * len(found)
    return Samples(
        content=Lazy(len(files), lambda i: read_image(files[i])), labels=np.array(labels, dtype=np.int64),
        names=[f"{f.parent.name}/{f.name}" for f in files], class_names=names,
    )  # fmt: skip


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
    data, labels = batch["data"], np.asarray(batch[key])
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(labels), 3072):
        shape = getattr(data, "shape", type(data).__name__)
        raise ImageFileError(f"{path}: data of shape {shape} for {len(labels)} labels; fetch the archive again")
    return data, _checked(labels, n_classes, path)


def _checked(labels: np.ndarray, n_classes: int, path: Path) -> np.ndarray:
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ImageFileError(f"{path}: label {labels.max()} of {n_classes} classes; fetch the archive again")
    return labels


def _cifar_names(folder: Path, n_classes: int) -> tuple[str, ...]:
    """From the meta file beside the batches, where there is one."""
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8").split()
            if len(lines) == n_classes:
                return tuple(lines)
    for name, key in (("batches.meta", "label_names"), ("meta", "fine_label_names")):
        if (folder / name).is_file():
            found = read_pickle(folder / name).get(key, [])
            if len(found) == n_classes:
                return tuple(n.decode() if isinstance(n, bytes) else n for n in found)
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
    return Samples(
        content=content, labels=labels.astype(np.int64), names=[f"{split}/{i}" for i in range(len(images))],
        class_names=DIGIT_NAMES,
    )  # fmt: skip


def read_idx(path: Path) -> np.ndarray:
    """A uint8 idx file, `path` or `path`.gz: magic 0x000008 and the number of dimensions, big-endian sizes, bytes."""
    packed = path.with_name(f"{path.name}.gz")
    if path.is_file():
        raw = path.read_bytes()
    elif packed.is_file():
        path = packed
        try:
            raw = gzip.decompress(packed.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise ImageFileError(f"{packed}: not a whole gzip file ({error}); fetch it again") from error
    else:
        raise FileNotFoundError(f"no {path.name} or {path.name}.gz in {path.parent}; fetch MNIST's four idx files")
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or raw[3] not in (1, 3):
        raise ImageFileError(f"{path}, byte 0: magic {raw[:4].hex()} is not that of idx bytes; fetch it again")
    n_dims = raw[3]
    start = 4 + 4 * n_dims
    shape = struct.unpack(f">{n_dims}I", raw[4:start].ljust(4 * n_dims, b"\0"))
    if len(raw) - start != int(np.prod(shape)):
        raise ImageFileError(f"{path}, byte {start}: {len(raw) - start} bytes for {shape}; fetch it again")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


# --- the embedded default -------------------------------------------------------------------------------------------


def read_digits() -> Samples:
    """The 1,797 digits of scikit-learn, 8 x 8, values 0..16, no network needed."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return Samples(
        content=found.images.astype(np.uint8), labels=found.target.astype(np.int64),
        names=[f"digit/{i}" for i in range(len(found.target))], class_names=DIGIT_NAMES, full_scale=16.0,
    )  # fmt: skip
