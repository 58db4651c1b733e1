"""Pictures are read as published, in every layout, and a damaged file is named; pickles are parsed, never run."""

import gzip
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spikeloom.vision.datasets.images import (
    MNIST_FILES,
    ImageFileError,
    read_cifar,
    read_class_folders,
    read_idx,
    read_image,
    read_mnist,
)
from spikeloom.vision.datasets.pickled import read_pickle
from spikeloom.vision.datasets.samples import in_total, stratified
from spikeloom.vision.datasets.sources import (
    CifarConfig,
    ImageFoldersConfig,
    MnistConfig,
    ScannedDigitsConfig,
    load_pictures,
)
from tests.conftest import data_folder


def write_picture(path: Path, value: int, size: int = 8, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size, size), (value,) * 3 if mode == "RGB" else value).save(path)


def write_folders(root: Path, splits: dict[str, int], classes: tuple[str, ...] = ("cat", "dog")) -> None:
    for split, n in splits.items():
        for label, name in enumerate(classes):
            for i in range(n):
                write_picture(root / split / name / f"{i}.png", 40 * label + i)


# --- MNIST ----------------------------------------------------------------------------------------------------------


def test_mnist_has_its_known_figures() -> None:
    root = data_folder("mnist")
    train, test = read_mnist(root, "train"), read_mnist(root, "test")
    assert (np.asarray(train.content).shape, np.asarray(test.content).shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert train.labels[:5].tolist() == [0, 3, 4, 7, 9]
    assert test.labels[:5].tolist() == [6, 9, 1, 4, 7]
    assert np.asarray(train.content).mean() == pytest.approx(33.3184, abs=5e-5)
    assert np.asarray(test.content).mean() == pytest.approx(33.7912, abs=5e-5)
    assert test.counts().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    splits = MnistConfig(root=str(root)).build()
    assert [len(s) for s in splits] == [55_000, 5_000, 10_000]


def idx_bytes(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_idx_files_are_read_plain_or_packed_and_checked(tmp_path: Path) -> None:
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx_bytes(array))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx_bytes(array)))
    assert np.array_equal(read_idx(tmp_path / "plain"), array)
    assert np.array_equal(read_idx(tmp_path / "packed"), array)
    for content, reason in (
        (idx_bytes(array)[:-1], r"byte 16: 23 bytes for \(2, 3, 4\)"), (b"\0\0\x0d\x03", "byte 0: magic 00000d03"),
        (b"", "byte 0: magic"), (idx_bytes(array)[:9], "byte 9: cut off in a header of 16 bytes"),
        (idx_bytes(array)[:6], "byte 6: cut off in a header of 16 bytes"),
        (idx_bytes(array[:0]), r"byte 4: sizes \(0, 3, 4\) leave nothing to read"),
        (idx_bytes(array[:, :0]), r"byte 4: sizes \(2, 0, 4\) leave nothing to read"),
        # a product beyond 64 bits, which wraps round to 0
        (b"\0\0\x08\x03" + struct.pack(">3I", 200, 2**31, 2**31), r"byte 4: sizes \(200, .* are more than"),
    ):  # fmt: skip
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ImageFileError, match=reason):
            read_idx(tmp_path / "bad")
    (tmp_path / "torn.gz").write_bytes(gzip.compress(idx_bytes(array))[:20])
    with pytest.raises(ImageFileError, match=r"torn\.gz: not a whole gzip file"):
        read_idx(tmp_path / "torn")
    with pytest.raises(FileNotFoundError, match=r"no missing or missing\.gz"):
        read_idx(tmp_path / "missing")


def write_mnist(root: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    for name, array in zip(MNIST_FILES[split], (images, labels), strict=True):
        (root / name).write_bytes(idx_bytes(array.astype(np.uint8)))


def test_mnist_of_strange_labels_or_of_two_sizes_is_named(tmp_path: Path) -> None:
    for split, n in (("train", 40), ("test", 20)):
        write_mnist(tmp_path, split, np.zeros((n, 28, 28)), np.arange(n) % 10)
    assert [len(s) for s in MnistConfig(root=str(tmp_path)).build()] == [30, 10, 20]
    write_mnist(tmp_path, "train", np.zeros((40, 32, 32)), np.arange(40) % 10)
    for read in (MnistConfig(root=str(tmp_path)).build, MnistConfig(root=str(tmp_path)).load):
        with pytest.raises(ValueError, match=r"pictures of \(32, 32\) to train on, of \(28, 28\) to test; fetch"):
            read()
    write_mnist(tmp_path, "train", np.zeros((40, 28, 28)), np.arange(40) % 12)
    with pytest.raises(ImageFileError, match=r"train-labels-idx1-ubyte: sample 10: label 10 of 10 classes"):
        MnistConfig(root=str(tmp_path)).build()


# --- CIFAR ----------------------------------------------------------------------------------------------------------


def old_pickle(batch: dict[bytes, Any]) -> bytes:
    """Protocol 2 of Python 2, as CIFAR is published: opcodes written out, so that no library is trusted to do it."""

    def string(raw: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(raw)) + raw

    def value(item: Any) -> bytes:
        if isinstance(item, np.ndarray):
            n, m = item.shape
            dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tRq\x04(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            shape = b"J" + struct.pack("<i", n) + b"J" + struct.pack("<i", m) + b"\x86"
            made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btRq\x03"
            return made + b"(K\x01" + shape + dtype + b"\x89" + string(item.tobytes()) + b"tb"
        if isinstance(item, list):
            return b"](" + b"".join(b"K" + bytes([i]) if isinstance(i, int) else string(i) for i in item) + b"e"
        return string(item)

    items = b"".join(string(key) + value(item) for key, item in batch.items())
    return b"\x80\x02}q\x01(" + items + b"u."


def cifar_rows(n: int, seed: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3072), dtype=np.uint8), [i % 10 for i in range(n)]


def test_both_versions_of_cifar10_hold_the_same_samples(tmp_path: Path) -> None:
    binary, python = tmp_path / "cifar-10-batches-bin", tmp_path / "other" / "cifar-10-batches-py"
    binary.mkdir()
    python.mkdir(parents=True)
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        data, labels = cifar_rows(40, i)
        (binary / f"{name}.bin").write_bytes(np.c_[np.array(labels, np.uint8), data].tobytes())
        (python / name).write_bytes(old_pickle({b"batch_label": b"part", b"labels": labels, b"data": data}))
    (python / "batches.meta").write_bytes(old_pickle({b"label_names": [f"name{i}".encode() for i in range(10)]}))
    a, b = CifarConfig(root=str(tmp_path)).build(), CifarConfig(root=str(tmp_path / "other")).build()
    assert [len(s) for s in a] == [180, 20, 40]
    for ours, theirs in zip(a, b, strict=True):
        assert ours.digest() == theirs.digest()
        assert all(np.array_equal(x, y) for x, y in zip(ours.content, theirs.content, strict=True))
    assert b.train.class_names[3] == "name3"
    first = cifar_rows(40, 0)[0][0].reshape(3, 32, 32)
    assert np.array_equal(read_cifar(binary, 10, "train").content[0][..., 0], first[0])  # red plane first


def test_cifar100_takes_fine_labels(tmp_path: Path) -> None:
    for name, n in (("train", 400), ("test", 100)):
        data = np.zeros((n, 3072), np.uint8)
        fine = np.arange(n) % 100
        (tmp_path / f"{name}.bin").write_bytes(
            np.c_[(fine % 20).astype(np.uint8), fine.astype(np.uint8), data].tobytes()
        )
    splits = CifarConfig(root=str(tmp_path), classes=100).build()
    assert [len(s) for s in splits] == [300, 100, 100]
    assert splits.test.labels.tolist() == list(range(100))


def test_damaged_cifar_files_are_named(tmp_path: Path) -> None:
    data, labels = cifar_rows(20, 0)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        (tmp_path / f"{name}.bin").write_bytes(np.c_[np.array(labels, np.uint8), data].tobytes())
    cut = tmp_path / "data_batch_3.bin"
    cut.write_bytes(cut.read_bytes()[:-7])
    with pytest.raises(ImageFileError, match=r"data_batch_3\.bin: \d+ bytes are not whole records of 3073"):
        CifarConfig(root=str(tmp_path)).build()
    cut.write_bytes(b"\x0b" + bytes(3072))
    with pytest.raises(ImageFileError, match=r"label 11 of 10 classes"):
        CifarConfig(root=str(tmp_path)).build()
    cut.unlink()
    with pytest.raises(FileNotFoundError, match=r"no data_batch_3 or data_batch_3\.bin"):
        CifarConfig(root=str(tmp_path)).build()


BATCH = {b"labels": list(range(10)), b"data": np.zeros((10, 3072), np.uint8)}
STRANGE_LABELS = {
    "halves": [0.5] * 10, "text": [b"cat"] * 10, "text_of_python_3": ["cat"] * 10, "ragged": [[1], [1, 2]],
    "empty": [], "one": 5, "table": [[1, 2], [3, 4]],
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE_LABELS)
def test_labels_of_cifar_that_are_no_numbers_are_named(name: str, tmp_path: Path) -> None:
    labels = STRANGE_LABELS[name]
    n = len(labels) if isinstance(labels, list) else 10
    (tmp_path / "test_batch").write_bytes(
        pickle.dumps({"labels": labels, "data": np.zeros((n, 3072), np.uint8)}, protocol=4)
    )
    with pytest.raises(
        ImageFileError, match=r"test_batch: (`labels` is no list of whole numbers|no sample in it); fetch"
    ):
        read_cifar(tmp_path, 10, "test")


def test_a_pickle_that_holds_itself_or_other_names_is_named(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    (tmp_path / "endless").write_bytes(pickle.dumps(endless, protocol=2))
    with pytest.raises(ValueError, match=r"endless, byte \d+: not a pickle of plain arrays and lists"):
        read_pickle(tmp_path / "endless")
    (tmp_path / "test_batch").write_bytes(old_pickle(BATCH))
    for meta in ([1, 2], {"label_names": 5}, {"label_names": list(range(10))}):
        (tmp_path / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
        with pytest.raises(ImageFileError, match=r"batches\.meta: no list `label_names` of names in it; fetch"):
            read_cifar(tmp_path, 10, "test")


def test_a_pickle_that_wants_to_run_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for name, evil in (
        ("system", b"\x80\x02cos\nsystem\n(U" + bytes([len(f"touch {mark}")]) + f"touch {mark}".encode() + b"tR."),
        ("eval", b"\x80\x02c__builtin__\neval\n(U\x031+1tR."),
        ("object", b"\x80\x02c__builtin__\nobject\n)\x81."),
    ):
        (tmp_path / name).write_bytes(evil)
        with pytest.raises(ValueError, match=rf"{name}, byte \d+: not a pickle of plain arrays and lists"):
            read_pickle(tmp_path / name)
    assert not mark.exists()
    for seed in range(300):
        (tmp_path / "noise").write_bytes(np.random.default_rng(seed).bytes(50))
        with pytest.raises(ValueError, match="not a pickle"):
            read_pickle(tmp_path / "noise")


# --- class folders --------------------------------------------------------------------------------------------------


def test_the_pictures_at_hand_are_of_ten_classes() -> None:
    root = data_folder("cifar10")
    splits = CifarConfig(root=str(root)).build()
    n_train, n_test = len(splits.train) + len(splits.valid), len(splits.test)
    assert splits.train.class_names == splits.test.class_names
    assert len(splits.train.class_names) == 10
    assert (splits.train.counts() == 9 * splits.valid.counts()).all()
    assert len(load_pictures(root)) == n_train + n_test
    assert splits.train.content[0].shape == (32, 32, 3)
    names = [set(s.names) for s in splits]
    assert not (names[0] & names[1])


def test_any_layout_of_pictures_is_found(tmp_path: Path) -> None:
    write_folders(tmp_path / "flat", {"": 3})
    write_folders(tmp_path / "split", {"train": 3, "test": 2})
    assert len(load_pictures(tmp_path / "flat")) == 6
    assert len(load_pictures(tmp_path / "split")) == 10
    samples = load_pictures(tmp_path / "split")
    assert samples.labels.tolist() == [0] * 3 + [1] * 3 + [0] * 2 + [1] * 2
    assert samples.names[-1] == "dog/1.png"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_pictures(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="holds no folder with pictures"):
        load_pictures(tmp_path / "bare")
    (tmp_path / "flat" / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no picture"):
        load_pictures(tmp_path / "flat")
    with pytest.raises(ValueError, match=r"dog is none of the classes cat"):
        read_class_folders(tmp_path / "split" / "train", ("cat",))


def test_imagenet_keeps_its_published_validation_set_for_the_test(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 8, "val": 2})
    splits = ImageFoldersConfig(root=str(tmp_path), valid_per_class=3).build()
    assert [len(s) for s in splits] == [10, 6, 4]
    assert splits.valid.counts().tolist() == [3, 3]
    with pytest.raises(FileNotFoundError, match=r"no train and test or val"):
        ImageFoldersConfig(root=str(tmp_path / "val")).build()


def test_pictures_of_other_modes_are_converted_and_broken_ones_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "grey.png", 7, mode="L")
    assert read_image(tmp_path / "grey.png").shape == (8, 8)
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(tmp_path / "alpha.png")
    assert read_image(tmp_path / "alpha.png")[0, 0].tolist() == [1, 2, 3]
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(stream, "JPEG")
    (tmp_path / "torn.jpg").write_bytes(stream.getvalue()[:900])
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("torn.jpg", "text.jpg"):
        with pytest.raises(ImageFileError, match=rf"{name}: not a whole picture .* fetch or remove it"):
            read_image(tmp_path / name)


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    expected = np.round(values / 257)
    for mode, suffix in (("I;16", "png"), ("I;16", "tif"), ("I", "tif")):
        path = tmp_path / f"deep.{suffix}"
        Image.fromarray(values if mode == "I;16" else values.astype(np.int32)).save(path)
        with Image.open(path) as image:
            assert image.mode == mode
        found = read_image(path)
        assert (found.dtype, found.shape) == (np.uint8, (256, 256))
        assert np.array_equal(found, expected)
    for name, strange in (
        ("float", values.astype(np.float32)),
        ("long", values.astype(np.int32) + 1),
        ("minus", -values.astype(np.int32)),
    ):
        Image.fromarray(strange).save(tmp_path / f"{name}.tif")
        with pytest.raises(ImageFileError, match=rf"{name}\.tif: \w+ values .* save it with 8 or 16 bits"):
            read_image(tmp_path / f"{name}.tif")


def test_what_is_transparent_becomes_white_or_black_under_white_ink(tmp_path: Path) -> None:
    path = tmp_path / "ink.png"

    def read(ink: int, alpha: list[int], mode: str = "RGBA") -> list[int]:
        picture = np.full((1, len(alpha), 4), ink, np.uint8)
        picture[..., 3] = alpha
        Image.fromarray(picture).convert(mode).save(path)
        found = read_image(path)
        assert found.ndim == (3 if mode == "RGBA" else 2)
        return found.reshape(len(alpha), -1)[:, 0].tolist()

    for mode in ("RGBA", "LA"):
        assert read(0, [0, 51, 255], mode) == [255, 204, 0]
        assert read(255, [0, 51, 255], mode) == [0, 51, 255]
        assert read(255, [255, 255], mode) == [255, 255]
        assert read(7, [0, 0], mode) == [255, 255]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([9, 9, 9, 20, 30, 40])
    for suffix in ("png", "gif"):
        palette.save(tmp_path / f"clear.{suffix}", transparency=0)
        assert read_image(tmp_path / f"clear.{suffix}").tolist() == [[[255] * 3, [20, 30, 40]]]


def test_opaque_pictures_with_an_alpha_channel_are_unchanged(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(np.dstack([colours, np.full((64, 64), 255, np.uint8)])).save(tmp_path / "colours.png")
    Image.fromarray(np.dstack([grey, np.full((16, 16), 255, np.uint8)]), mode="LA").save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "colours.png"), colours)
    assert np.array_equal(read_image(tmp_path / "grey.png"), grey)


def test_a_picture_too_large_to_unpack_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    write_picture(tmp_path / "bomb.png", 1, size=20)
    with pytest.raises(ImageFileError, match=r"bomb\.png: Image size .* make the picture smaller"):
        read_image(tmp_path / "bomb.png")


def test_files_beside_the_pictures_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folders(tmp_path, {"train": 4, "test": 2, "3": 1})
    for name in ("train/cat/a.TIF", "train/dog/b.gif", "train/loose.png"):
        write_picture(tmp_path / name, 9)
    for name in ("train/cat/notes.txt", "train/cat/.hidden", "train/README"):
        (tmp_path / name).write_text("no picture")
    with caplog.at_level("WARNING", logger="spikeloom"):
        assert len(read_class_folders(tmp_path / "train")) == 10
    assert [r.getMessage().rpartition(": ")[2] for r in caplog.records] == ["cat/notes.txt, loose.png"]
    assert f"{tmp_path / 'train'}: 2 files are left out" in caplog.text
    for read in (lambda: load_pictures(tmp_path), ImageFoldersConfig(root=str(tmp_path)).build):
        caplog.clear()
        with caplog.at_level("WARNING", logger="spikeloom"):
            read()
        assert f"{tmp_path}: the pictures in 1 folders beside " in caplog.text
        assert "are left out: 3\n" in caplog.text


# --- digits and splits ----------------------------------------------------------------------------------------------


def test_the_embedded_digits_and_their_split() -> None:
    everything = ScannedDigitsConfig().load()
    assert everything.counts().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    values = np.asarray(everything.content, dtype=np.float64) / everything.full_scale
    assert values.mean() == pytest.approx(0.3053, abs=5e-5)
    assert values.std() == pytest.approx(0.3760, abs=5e-5)
    splits = ScannedDigitsConfig().build()
    assert [len(s) for s in splits] == [1257, 180, 360]
    assert len({name for s in splits for name in s.names}) == 1797
    for samples in splits:
        share = samples.counts() / everything.counts()
        assert share.max() - share.min() < 0.02
    assert ScannedDigitsConfig().build().train.digest() == splits.train.digest()
    assert ScannedDigitsConfig(split_seed=1).build().train.digest() != splits.train.digest()


def test_a_stratified_draw_meets_its_sizes_and_refuses_what_it_cannot() -> None:
    labels = np.repeat([0, 1, 2], [7, 20, 13])
    assert in_total(labels, 10, 3).tolist() == [2, 5, 3]
    kept, drawn = stratified(labels, np.array([1, 5, 3]), seed=4)
    assert np.bincount(labels[drawn]).tolist() == [1, 5, 3]
    assert sorted([*kept, *drawn]) == list(range(40))
    with pytest.raises(ValueError, match=r"class 0 has 7 samples, of which 7 cannot be set apart"):
        stratified(labels, np.array([7, 1, 1]), seed=0)
