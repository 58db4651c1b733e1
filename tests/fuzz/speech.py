"""Recordings of sound, spike files, lists of words."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from spikeloom.speech.datasets.audio import n_samples, read_audio, stream_audio
from spikeloom.speech.datasets.shd import SpikeFileConfig
from spikeloom.speech.datasets.speech_commands import Recording, published_sets
from spikeloom.speech.datasets.utterances import Utterances
from spikeloom.speech.datasets.words import WordsConfig
from spikeloom.speech.distillation import hand_over
from spikeloom.speech.features.cochlea.cochlea import CochleaConfig
from spikeloom.speech.features.cochlea.convert import _convert_batch, _read_part
from tests.fuzz.parser import Parser, only_file
from tests.pipelines.small_data import write_spikes, write_word

TONE = 0.3 * np.sin(np.arange(800) / 7)
SETS = {"x": "train", "y": "dev", "z": "test"}
# ending, format and subtype of libsndfile
SOUNDS = (
    ("wav", "WAV", "PCM_16"), ("wav", "WAV", "FLOAT"), ("wav", "WAV", "PCM_24"), ("wav", "WAV", "ULAW"),
    ("wav", "WAV", "IMA_ADPCM"), ("wav", "WAV", "MS_ADPCM"), ("wav", "WAV", "GSM610"), ("wav", "WAVEX", "PCM_32"),
    ("wav", "RF64", "PCM_16"), ("w64", "W64", "PCM_16"), ("flac", "FLAC", "PCM_16"), ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"), ("mp3", "MP3", "MPEG_LAYER_III"), ("aiff", "AIFF", "PCM_16"), ("aifc", "AIFF", "FLOAT"),
    ("au", "AU", "PCM_16"), ("caf", "CAF", "PCM_16"), ("caf", "CAF", "ALAC_16"), ("snd", "AU", "ULAW"),
)  # fmt: skip


def sounds(kinds: tuple[str, ...]) -> Any:
    def write(folder: Path) -> None:
        for i, (ending, kind, subtype) in enumerate(s for s in SOUNDS if s[1] in kinds):
            (folder / str(i)).mkdir()
            path = folder / str(i) / f"a.{ending}"
            soundfile.write(path, np.stack([TONE, TONE], 1) if i % 2 else TONE, 16_000, subtype, format=kind)

    return write


def read_sound(folder: Path) -> np.ndarray:
    path = only_file(folder)
    whole = read_audio(path, 16_000)
    n_samples(path, 16_000)
    for _ in stream_audio(path, 8_000):
        pass
    return whole


def is_sound(result: np.ndarray) -> None:
    assert result.dtype == np.float32 and result.ndim == 1 and len(result) and np.isfinite(result).all()


def spike_files(folder: Path) -> None:
    for i in range(2):
        write_spikes(folder / str(i) / "a.h5", 6, 2, 3, seed=i)


def read_spikes(folder: Path) -> Any:
    config = SpikeFileConfig(root=str(only_file(folder)))
    config.build()
    clips = config.load()
    return clips, [clips.events[i] for i in range(len(clips))]


def is_spikes(result: Any) -> None:
    clips, events = result
    assert len(clips.labels) == len(clips.speakers) == len(events)
    assert clips.labels.min(initial=0) >= 0 and clips.labels.max(initial=0) < len(clips.class_names)
    for clip in events:
        assert np.isfinite(clip.times_s).all() and clip.times_s.shape == clip.units.shape
        assert clip.units.min(initial=0) >= 0 and clip.units.max(initial=0) < 700


def word_folder(folder: Path) -> None:
    names = [f"{w}/{s}{i}.wav" for w in "ab" for s in "xyz" for i in range(2)]
    table = "file,word,speaker,split\n" + "".join(f"{n},{n[0]},{n[2]},{SETS[n[2]]}\n" for n in names)
    for case, text in enumerate((table, "path\tlabel\n" + "".join(f"{n}\t{n[0]}\n" for n in names), "\n".join(names))):
        for name in names:
            write_word(folder / str(case) / name, 300, seconds=0.001)
        (folder / str(case) / "train.csv").write_text(text, "utf-8")


def read_words(folder: Path) -> Any:
    return WordsConfig(root=str(folder)).load()


def lists_of_commands(folder: Path) -> None:
    (folder / "0").mkdir()
    for name in ("validation_list.txt", "testing_list.txt"):
        (folder / "0" / name).write_text(f"yes/{name[:4]}_nohash_0.wav\n", "utf-8")


def read_lists(folder: Path) -> list[str]:
    return published_sets(folder, [Recording(folder / "yes" / "vali_nohash_0.wav", "yes", "vali")])


def is_set(result: list[str]) -> None:
    assert len(result) == 1 and result[0] in ("training", "validation", "testing")


def stages(folder: Path) -> None:
    (folder / "0").mkdir()
    state = {f"model.{k}": v for k, v in torch.nn.Linear(2, 3).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1}, folder / "0" / "best.ckpt")


def read_stage(folder: Path) -> torch.nn.Module:
    model = torch.nn.Linear(2, 3)
    hand_over(folder / "best.ckpt", model)
    return model


def spike_parts(folder: Path) -> None:
    (folder / "0").mkdir()
    waveforms = [np.random.default_rng(i).standard_normal(800).astype(np.float32) for i in range(3)]
    utterances = Utterances(
        waveforms=waveforms, labels=np.array([0, 1, 0]), speakers=["x"] * 3, names=["a", "b", "c"],
        class_names=("yes", "no"), sample_rate_hz=16_000,
    )  # fmt: skip
    _convert_batch(utterances, CochleaConfig().build(), "float32", 3, folder / "0", 0)


def read_parts(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    return [row for file in sorted(folder.iterdir()) for row in _read_part(file)]


def is_part(result: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert result and all(len(times) == len(units) for times, units in result)


SOUND = ("speech/datasets/audio.py:opened", "speech/datasets/riff.py:open_wav")
PARSERS = [
    *(
        Parser(name=name, write=sounds(kinds), read=read_sound, promise=is_sound, covers=SOUND)
        for name, kinds in (
            ("wav", ("WAV", "WAVEX", "RF64", "W64")),
            ("flac", ("FLAC",)),
            ("ogg_opus", ("OGG",)),
            ("mp3", ("MP3",)),
            ("aiff_au_caf", ("AIFF", "AU", "CAF")),
        )
    ),
    Parser(
        name="spike_hdf5",
        write=spike_files,
        read=read_spikes,
        promise=is_spikes,
        covers=("speech/datasets/spike_files.py:_open", "speech/datasets/spike_files.py:_require_rows_that_fit"),
    ),
    Parser(
        name="word_lists",
        write=word_folder,
        read=read_words,
        mutates=(".csv",),
        covers=("speech/datasets/word_lists.py:read_list",),
    ),
    Parser(
        name="speech_command_lists",
        write=lists_of_commands,
        read=read_lists,
        promise=is_set,
        covers=("speech/datasets/speech_commands.py:published_sets",),
    ),
    Parser(
        name="spike_parts",
        write=spike_parts,
        read=read_parts,
        promise=is_part,
        covers=("speech/features/cochlea/convert.py:_read_part",),
    ),
    Parser(name="stage_checkpoint", write=stages, read=read_stage, covers=("speech/distillation.py:hand_over",)),
]
