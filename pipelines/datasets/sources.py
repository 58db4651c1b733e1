"""Where public data sets come from: files with size and checksum, licence, and the steps where there is no direct link.

Sizes and checksums are those that the publishers state, or that other loaders of the same files have pinned; None where
nobody publishes one. A checksum that is not known is recorded when a file is first fetched. DATA is read below
`$SPIKELOOM_DATA` in the folder that `conf/data` names.
"""

from dataclasses import dataclass

from spikeloom.speech.datasets import shd
from spikeloom.speech.datasets import speech_commands as commands

TENSORFLOW = "https://storage.googleapis.com/download.tensorflow.org/data"
GITHUB = "https://github.com"
MENDELEY = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files"
CIFAR = "https://www.cs.toronto.edu/~kriz"
BROWSER = "open the page in a browser, since it refuses programs"


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a data set, and what becomes of it."""

    name: str
    url: str | None  # None: there is no direct link
    n_bytes: int | None = None  # None: the server says
    checksum: str | None = None  # ALGORITHM:DIGEST; None: recorded at first download
    unpack: bool = False  # a zip or tar, removed once it is unpacked
    strip: int = 0  # leading folders of its members to leave out
    only: str = ""  # beginning of the members to unpack, once stripped; empty: all


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data set. `home`: the page of its authors; `steps`: what to do by hand where there is no direct link."""

    title: str
    licence: str
    home: str
    files: tuple[RemoteFile, ...] = ()
    steps: str = ""
    osf: bool = False  # its files are listed by the Open Science Framework when they are fetched
    same_as: str = ""  # another name of the same folder


def _spikes(name: str) -> RemoteFile:
    return RemoteFile(
        name=f"{name}.h5.zip", url=f"{shd.SITE}/{name}.h5.zip", checksum=shd.CHECKSUMS[f"{name}.h5.zip"], unpack=True
    )


def _mnist(name: str, n_bytes: int, md5: str) -> RemoteFile:
    return RemoteFile(
        name=f"{name}.gz", url=f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz", n_bytes=n_bytes,
        checksum=f"md5:{md5}",
    )  # fmt: skip


def _dvs(number: int, name: str, md5: str) -> RemoteFile:
    return RemoteFile(
        name=f"{name}.zip", url=f"https://ndownloader.figshare.com/files/{number}", checksum=f"md5:{md5}", unpack=True
    )


_GSC = Source(
    title="Google Speech Commands v0.02: 105,829 clips of 35 words",
    licence="CC BY 4.0", home="https://arxiv.org/abs/1804.03209",
    files=(RemoteFile(
        name=commands.ARCHIVE, url=f"{TENSORFLOW}/{commands.ARCHIVE}", n_bytes=2_428_923_189,
        checksum=commands.CHECKSUMS[commands.ARCHIVE], unpack=True,
    ),),
)  # fmt: skip

SOURCES: dict[str, Source] = {
    "fsdd": Source(
        title="Free Spoken Digit Dataset v1.0.10: 3,000 recordings of 6 speakers",
        licence="CC BY-SA 4.0", home=f"{GITHUB}/Jakobovski/free-spoken-digit-dataset",
        files=(RemoteFile(
            name="fsdd-1.0.10.tar.gz",
            url=f"{GITHUB}/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz",
            unpack=True, strip=1, only="recordings/",
        ),),
    ),
    "gsc35": _GSC,
    "gsc12": Source(title=_GSC.title, licence=_GSC.licence, home=_GSC.home, same_as="gsc35"),
    "gsc_v1": Source(
        title="Google Speech Commands v0.01: 64,727 clips of 30 words (data=words data.root=FOLDER)",
        licence="CC BY 4.0", home="https://arxiv.org/abs/1804.03209",
        files=(RemoteFile(
            name="speech_commands_v0.01.tar.gz", url=f"{TENSORFLOW}/speech_commands_v0.01.tar.gz",
            n_bytes=1_489_096_277,
            checksum="sha256:743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d", unpack=True,
        ),),
    ),
    "asc": Source(
        title="Arabic Speech Commands: 12,000 clips of 40 words, 30 speakers",
        licence="CC BY 4.0", home=f"{GITHUB}/abdulkaderghandoura/arabic-speech-commands-dataset",
        files=(RemoteFile(
            name="arabic-speech-commands.zip",
            url=f"{GITHUB}/abdulkaderghandoura/arabic-speech-commands-dataset/archive/refs/heads/master.zip",
            unpack=True, strip=1,
        ),),
    ),
    "shd": Source(
        title="Spiking Heidelberg Digits", licence="CC BY 4.0", home=shd.SITE,
        files=tuple(map(_spikes, ("shd_train", "shd_test"))),
    ),
    "ssc": Source(
        title="Spiking Speech Commands", licence="CC BY 4.0", home=shd.SITE,
        files=tuple(map(_spikes, ("ssc_train", "ssc_valid", "ssc_test"))),
    ),
    "mnist": Source(
        title="MNIST: 70,000 handwritten digits", licence="CC BY-SA 3.0", home="http://yann.lecun.com/exdb/mnist",
        files=(
            _mnist("train-images-idx3-ubyte", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            _mnist("train-labels-idx1-ubyte", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
            _mnist("t10k-images-idx3-ubyte", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
            _mnist("t10k-labels-idx1-ubyte", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
    ),
    "cifar10": Source(
        title="CIFAR-10: 60,000 pictures of 10 classes", licence="none stated by the authors",
        home=f"{CIFAR}/cifar.html",
        files=(RemoteFile(
            name="cifar-10-binary.tar.gz", url=f"{CIFAR}/cifar-10-binary.tar.gz", n_bytes=170_052_171,
            checksum="sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", unpack=True,
        ),),
    ),
    "cifar100": Source(
        title="CIFAR-100: 60,000 pictures of 100 classes", licence="none stated by the authors",
        home=f"{CIFAR}/cifar.html",
        files=(RemoteFile(
            name="cifar-100-binary.tar.gz", url=f"{CIFAR}/cifar-100-binary.tar.gz", n_bytes=168_513_733,
            checksum="sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec", unpack=True,
        ),),
    ),
    "nmnist": Source(
        title="N-MNIST: 70,000 event-camera recordings", licence="CC BY-SA 4.0",
        home="https://www.garrickorchard.com/datasets/n-mnist",
        files=(
            RemoteFile(name="Train.zip", url=f"{MENDELEY}/39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
                       checksum="md5:20959b8e626244a1b502305a9e6e2031", unpack=True),
            RemoteFile(name="Test.zip", url=f"{MENDELEY}/05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
                       checksum="md5:69ca8762b2fe404d9b9bad1103e97832", unpack=True),
        ),
    ),
    "dvs128": Source(
        title="DVS128 Gesture: 1,464 event-camera recordings of 11 gestures", licence="CC BY 4.0",
        home="https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794",
        files=(RemoteFile(
            name="DvsGesture.tar.gz", url=None, checksum="md5:8a5c71fb11e24e5ca5b11866ca6c00a1", unpack=True, strip=1,
        ),),
        steps=BROWSER,
    ),
    "cifar10dvs": Source(
        title="CIFAR10-DVS: 10,000 event-camera recordings", licence="CC BY 4.0",
        home="https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
        files=(
            _dvs(7712788, "airplane", "0afd5c4bf9ae06af762a77b180354fdd"),
            _dvs(7712791, "automobile", "8438dfeba3bc970c94962d995b1b9bdd"),
            _dvs(7712794, "bird", "a9c207c91c55b9dc2002dc21c684d785"),
            _dvs(7712812, "cat", "52c63c677c2b15fa5146a8daf4d56687"),
            _dvs(7712815, "deer", "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
            _dvs(7712818, "dog", "f379ebdf6703d16e0a690782e62639c3"),
            _dvs(7712842, "frog", "cad6ed91214b1c7388a5f6ee56d08803"),
            _dvs(7712851, "horse", "e7cbbf77bec584ffbf913f00e682782a"),
            _dvs(7712836, "ship", "41c7bd7d6b251be82557c6cce9a7d5c9"),
            _dvs(7712839, "truck", "89f3922fd147d9aeff89e76a2b0b70a7"),
        ),
    ),
    "zuco": Source(
        title="ZuCo 1.0 and 2.0: EEG and eye tracking of readers", licence="as the authors state there",
        home="https://osf.io/q3zws (1.0), https://osf.io/2urht (2.0)", osf=True,
    ),
    "imagenet": Source(
        title="ImageNet ILSVRC 2012", licence="terms of access, non-commercial", home="https://image-net.org/download",
        steps="register there and get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar; unpack them as "
        "train/CLASS/*.JPEG and val/CLASS/*.JPEG",
    ),
}  # fmt: skip
