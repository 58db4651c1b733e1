"""Pictures in tar files are those of class folders: same pixels, labels and splits; damage is named, memory bounded."""

import io
import pickle
import tarfile
from pathlib import Path

import pytest

from spikeloom.vision.datasets import tar_shards
from spikeloom.vision.datasets.images import ImageFileError
from spikeloom.vision.datasets.sources import ImageFoldersConfig, load_pictures
from spikeloom.vision.datasets.tar_shards import read_shards
from tests.vision.test_images import write_folders


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def packed(root: Path, form: str, out: Path) -> Path:
    """The class folders `root/SPLIT/CLASS` as tar files in one of the forms."""
    for split in ("train", "val"):
        files = sorted((root / split).glob("*/*.png"))
        classes = sorted({file.parent.name for file in files})
        if form == "class":
            for name in classes:
                write_tar(out / split / f"{name}.tar", {f.name: f.read_bytes() for f in files if f.parent.name == name})
            continue
        for shard in range(2):
            content: dict[str, bytes] = {}
            for i, file in list(enumerate(files))[shard::2]:
                if form == "folder":
                    content[f"./{file.parent.name}/{file.name}"] = file.read_bytes()
                else:
                    content |= {
                        f"{i:04d}.png": file.read_bytes(),
                        f"{i:04d}.cls": b"%d\n" % classes.index(file.parent.name),
                        f"{i:04d}.json": b"{}",
                    }
            write_tar(out / split / f"part-{shard}.tar", content)
    return out


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    write_folders(root, {"train": 6, "val": 2})
    return root


@pytest.mark.parametrize("form", ["class", "folder", "number"])
def test_tar_files_hold_what_the_folders_do(form: str, folders: Path, tmp_path: Path) -> None:
    plain = ImageFoldersConfig(root=str(folders), valid_per_class=2).build()
    for _ in range(2):  # from the headers, then from the index
        found = ImageFoldersConfig(root=str(packed(folders, form, tmp_path)), valid_per_class=2).build()
        assert [len(split) for split in found] == [len(split) for split in plain] == [8, 4, 4]
        assert found.train.class_names == (("0", "1") if form == "number" else ("cat", "dog"))
        for ours, theirs in zip(found, plain, strict=True):
            assert ours.counts().tolist() == theirs.counts().tolist()
        for whole in (found.test, pickle.loads(pickle.dumps(found.test))):
            pixels = sorted(
                (int(label), picture.tobytes()) for label, picture in zip(whole.labels, whole.content, strict=True)
            )
            assert pixels == sorted(
                (int(label), picture.tobytes())
                for label, picture in zip(plain.test.labels, plain.test.content, strict=True)
            )
    assert len(load_pictures(tmp_path)) == 16


def test_the_index_follows_the_file_and_is_no_need(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = packed(folders, "class", tmp_path) / "train"
    assert len(read_shards(root)) == 12 and len(list((root / ".spikeloom").iterdir())) == 2
    scanned = []  # str
    scan = tar_shards._scanned
    monkeypatch.setattr(tar_shards, "_scanned", lambda path, size: scanned.append(path.name) or scan(path, size))
    assert len(read_shards(root)) == 12 and scanned == []
    write_tar(root / "cat.tar", {"new.png": (folders / "train" / "cat" / "0.png").read_bytes()})
    assert len(read_shards(root)) == 7 and scanned == ["cat.tar"]

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(tar_shards, "whole", refuse)
    write_tar(root / "cat.tar", {"new.png": (folders / "train" / "cat" / "0.png").read_bytes(), "x.txt": b""})
    assert len(read_shards(root)) == 7


def test_faults_name_the_file_and_the_remedy(folders: Path, tmp_path: Path) -> None:
    root = packed(folders, "class", tmp_path) / "train"
    whole = (root / "cat.tar").read_bytes()
    picture = (folders / "train" / "cat" / "0.png").read_bytes()
    for content, message in (
        (b"no tar file" * 100, "not a whole tar file"), (whole[:700], "not a whole tar file"),
        (b"\0" * 10_240, "holds no picture"),
    ):  # fmt: skip
        (root / "cat.tar").write_bytes(content)
        with pytest.raises(ImageFileError, match=rf"cat\.tar.*{message}"):
            read_shards(root)
    write_tar(root / "cat.tar", {"0.png": picture[:40]})
    damaged = read_shards(root)
    with pytest.raises(ImageFileError, match=r"cat\.tar, byte 512: not a whole picture"):
        damaged.content[0]
    write_tar(root / "cat.tar", {"0.png": picture, "0.cls": b"0", "1.png": picture})
    with pytest.raises(ImageFileError, match=r"beside 1\.png lies no \.cls"):
        read_shards(root)
    (root / "cat.tar").unlink()
    with pytest.raises(ValueError, match="dog, none of the classes cat"):
        read_shards(root, ("cat",))
    write_folders(root.parent, {"train": 1})
    with pytest.raises(ValueError, match=r"tar files .* and folders of pictures; keep one"):
        ImageFoldersConfig(root=str(root.parent)).build()
    (file,) = (root / ".spikeloom").glob("dog*")
    file.write_text('{"names": ["a"], "classes": ["b"], "left_out": [], "places": [[1]]}')
    with pytest.raises(ValueError, match=r"dog\.tar.*is damaged.*delete"):
        read_shards(root)
