"""Electrodes are found whatever their spelling, unit and frame of place; a dead channel is told from a reference."""

from collections.abc import Callable, Iterable

import mne
import numpy as np
import pytest

from spikeloom.bci.raw.channels import electrodes_of, system
from spikeloom.bci.raw.recordings import onto_net, read_recording
from spikeloom.bci.raw.reference import ZEROS_FIT, error_of_zeros
from tests.bci.raw.test_recordings import named, net_raw
from tests.conftest import data_folder

TWENTY = [f"{row}{k}" for row in ("F", "C", "P") for k in (3, 4, "z")] + ["Fp1", "Fp2", "O1", "O2", "F7", "F8"]
TWENTY += ["T7", "T8", "P7", "P8"]


def test_names_of_the_net_are_known_in_every_spelling() -> None:
    raw = net_raw()
    expected = onto_net(raw).eeg_uv
    for spell in (str.lower, lambda n: f"EEG {n}", lambda n: f"E{int(n[1:]):03d}" if n[0] == "E" else "VREF"):
        same = raw.copy().set_montage(None).rename_channels({name: spell(name) for name in raw.ch_names})
        np.testing.assert_allclose(onto_net(same).eeg_uv, expected, atol=1e-6)
    without = onto_net(raw.copy().drop_channels(["Cz"]))
    assert "Cz, which is no channel, taken as the reference" in without.how


def smooth(names: list[str], seed: int = 0) -> mne.io.RawArray:
    """Electrodes of the 10-05 system with places, potentials smooth over the scalp."""
    raw = named(names).set_montage(system())
    at = np.array([c["loc"][:3] for c in raw.info["chs"]]) - [0, 0, 0.045]
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    sources = rng.standard_normal((40, 3))
    sources /= np.linalg.norm(sources, axis=1, keepdims=True)
    raw._data[:] = np.exp(6 * (at @ sources.T - 1)) @ rng.standard_normal((40, raw.n_times)) * 1e-5
    return raw


@pytest.mark.parametrize(
    ("moved", "said", "atol"),
    [
        (lambda at: 1e3 * at, "taken as millimetres", 0.01),
        (lambda at: 1e2 * at, "taken as centimetres", 0.01),
        (lambda at: np.array([at[1], -at[0], at[2]]), "placed by their names", 0.01),
        (lambda at: np.array([-at[0], at[1], at[2]]), "placed by their names", 0.01),
        (lambda at: (at - [0, 0, 0.04]) / np.linalg.norm(at - [0, 0, 0.04]), "directions from the centre", 3.0),
    ],
)
def test_places_in_another_unit_or_frame_are_settled_and_said(
    moved: Callable[[np.ndarray], np.ndarray], said: str, atol: float
) -> None:
    raw = smooth(TWENTY)
    expected = onto_net(raw).eeg_uv
    places = {c["ch_name"]: moved(c["loc"][:3]) for c in raw.info["chs"]}
    found = onto_net(raw.copy().set_montage(mne.channels.make_dig_montage(places, coord_frame="head")))
    assert said in found.how
    assert np.sqrt(((found.eeg_uv - expected) ** 2).mean()) < atol
    places = {name: 0.5 * at / np.linalg.norm(at) for name, at in places.items()}
    with pytest.raises(ValueError, match=r"5 m from the centre of the head.*store places in metres"):
        onto_net(raw.copy().set_montage(mne.channels.make_dig_montage(places, coord_frame="head")))


def test_a_dead_channel_is_no_reference() -> None:
    names = mne.channels.make_standard_montage("biosemi64").ch_names
    raw = smooth(names)
    expected = onto_net(raw).eeg_uv
    for name in ("F4", "Cz"):
        dead = raw.copy()
        dead._data[names.index(name)] = 0.0
        found = onto_net(dead)
        assert f"1 flat channels left out ({name})" in found.how
        assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(found.eeg_uv[:-1], expected, strict=False)) > 0.9
        referred = raw.copy()
        referred._data -= referred._data[names.index(name)].copy()
        found = onto_net(referred)
        assert f"{name}, which holds zeros, taken as the reference" in found.how
        np.testing.assert_allclose(found.eeg_uv, expected, atol=1e-6)


def errors_of_zeros(raw: mne.io.RawArray, name: str) -> tuple[float, float, float]:
    """Of one electrode: as the reference, dead as recorded, dead where the average is the reference."""
    place, data = raw.ch_names.index(name), raw._data.copy()
    found = []
    for reference in (data[place], 0.0, np.delete(data, place, axis=0).mean(axis=0)):
        raw._data[:] = data - reference
        raw._data[place] = 0.0
        found.append(error_of_zeros(raw, name))
    raw._data[:] = data
    return found[0], found[1], found[2]


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.25])
def test_zeros_fit_a_field_with_noise_where_they_are_its_reference(noise: float) -> None:
    raw = smooth(mne.channels.make_standard_montage("biosemi64").ch_names)
    raw._data += noise * np.median(raw._data.std(axis=1)) * np.random.default_rng(1).standard_normal(raw._data.shape)
    for name in ("Cz", "FCz", "Pz", "Oz", "F4"):
        reference, dead, averaged = errors_of_zeros(raw, name)
        assert reference <= ZEROS_FIT < dead and averaged == np.inf, name


def test_in_noise_alone_nothing_is_said_of_zeros() -> None:
    raw = named(mne.channels.make_standard_montage("biosemi64").ch_names).set_montage("biosemi64")
    raw._data[31] = 0.0
    assert np.isnan(error_of_zeros(raw, raw.ch_names[31]))
    assert "1 flat channels left out" in onto_net(raw).how


def test_dead_and_reference_electrodes_of_real_recordings_are_told_apart() -> None:
    usual = ("Cz", "FCz", "CPz", "Fz", "Pz", "T9")  # electrodes that amplifiers refer to
    for file in sorted(data_folder("eeg/physionet_mmidb").glob("*.edf")):
        raw = read_recording(file).crop(0, 20).load_data(verbose="error")
        raw.rename_channels(electrodes_of(raw.ch_names, file.name).renames).set_montage(system(), on_missing="ignore")
        found = {name: errors_of_zeros(raw, name) for name in (*usual, "Fp1", "F8", "T8", "TP8", "C5", "PO4")}
        assert min(dead for _, dead, _ in found.values()) > ZEROS_FIT
        assert {averaged for *_, averaged in found.values()} == {np.inf}
        assert max(found[name][0] for name in usual) <= ZEROS_FIT, found


def test_cz_of_the_net_is_dead_where_the_others_refer_to_their_average() -> None:
    raw = net_raw()
    expected = onto_net(raw).eeg_uv
    average = raw.copy().set_eeg_reference("average", projection=False, verbose="error")
    average._data[average.ch_names.index("Cz")] = 0.0
    found = onto_net(average)
    assert "1 flat channels left out (Cz)" in found.how and "re-referenced from the average to Cz" in found.how
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(found.eeg_uv[:-1], expected, strict=False)) > 0.9


def test_names_of_ten_twenty_are_known_in_every_spelling() -> None:
    for spell in ("EEG{}", "EEG_{}", "POL {}", "{}_Ref", "EEG-{}-A1"):
        assert "19 electrodes interpolated" in onto_net(named([spell.format(name) for name in TWENTY]), "x").how


def rates(raws: Iterable[mne.io.RawArray], n_places: int) -> dict[str, float]:
    """Of every `n_places`-th electrode: how often zeros are taken for the reference where they are it, where the
    electrode is dead, and where the average is the reference; `open`: how often nothing is said of a reference."""
    found = []
    for raw in raws:
        places = raw.ch_names[:: max(1, len(raw.ch_names) // n_places)]
        found += [errors_of_zeros(raw, name) for name in places]
    reference, dead, averaged = np.array(found).T
    return {
        "reference": float((reference <= ZEROS_FIT).mean()), "dead": float((dead <= ZEROS_FIT).mean()),
        "averaged": float((averaged <= ZEROS_FIT).mean()), "open": float(np.isnan(reference).mean()), "n": len(found),
    }  # fmt: skip


def noisy(raw: mne.io.RawArray, noise: float) -> mne.io.RawArray:
    """With white noise of `noise` times the median deviation."""
    made = raw.copy()
    rng = np.random.default_rng(1)
    made._data += noise * np.median(raw._data.std(axis=1)) * rng.standard_normal(raw._data.shape)
    return made


def named_of(montage: str) -> list[str]:
    return list(mne.channels.make_standard_montage(montage).ch_names)


def recorded(start_s: int) -> list[mne.io.RawArray]:
    """Twenty seconds of the three real recordings, their electrodes named and placed."""
    found = []
    for file in sorted(data_folder("eeg/physionet_mmidb").glob("*.edf")):
        raw = read_recording(file).crop(start_s, start_s + 20).load_data(verbose="error")
        raw.rename_channels(electrodes_of(raw.ch_names, file.name).renames).set_montage(system(), on_missing="ignore")
        found.append(raw)
    return found


def printed_rates(caps: dict[str, list[mne.io.RawArray]], noises: Iterable[float]) -> float:
    """Rows of the tables in docs/eeg.md; the largest share of dead electrodes taken for the reference."""
    worst = 0.0
    for name, raws in caps.items():
        cells, n = [], 0
        for noise in noises:
            found = rates([noisy(raw, noise) for raw in raws], 12)
            n, worst = int(found["n"]), max(worst, found["dead"], found["averaged"])
            cells.append(" / ".join(f"{100 * found[of]:.0f}" for of in ("reference", "open", "dead")))
        print(f"| {name} | {n} | " + " | ".join(cells) + " |")
    return worst


@pytest.mark.slow
def test_dead_electrodes_and_references_are_told_apart_on_caps_and_subsets() -> None:
    montages = {
        "10-20, 19 electrodes": TWENTY, "biosemi32": named_of("biosemi32"),
        "32 of biosemi64": named_of("biosemi64")[::2],
        "biosemi64": named_of("biosemi64"),
        "easycap-M1": [name for name in named_of("easycap-M1") if name in system().ch_names],
    }  # fmt: skip
    print()
    assert printed_rates({name: [smooth(names)] for name, names in montages.items()}, (0.0, 0.25, 0.5, 1.0)) <= 0.05
    real = recorded(20)
    subsets = {
        f"recorded, {n} of 64": [raw.copy().pick(raw.ch_names[start :: 64 // n][:n]) for start, raw in enumerate(real)]
        for n in (64, 32, 21, 16)
    }
    assert printed_rates(subsets, (0.0, 0.25, 0.5)) <= 0.05


@pytest.mark.slow
def test_dead_electrodes_and_references_are_told_apart_where_nothing_was_chosen() -> None:
    known = list(system().ch_names)
    montages = {
        "biosemi16": named_of("biosemi16"),
        "brainproducts-RNP-BA-128": [name for name in named_of("brainproducts-RNP-BA-128") if name in known],
        "48 of the 10-05 system": sorted(np.random.default_rng(11).choice(known, 48, replace=False)),
    }
    print()
    caps = {name: [smooth(names, seed) for seed in (11, 12)] for name, names in montages.items()}
    assert printed_rates(caps, (0.1, 0.35, 0.75)) <= 0.05
    real = recorded(80)
    subsets = {
        f"recorded, {n} of 64": [
            raw.copy().pick(sorted(np.random.default_rng(20 + i).choice(raw.ch_names, n, replace=False)))
            for i, raw in enumerate(real)
        ]
        for n in (64, 40, 24, 16)
    }
    assert printed_rates(subsets, (0.0, 0.1, 0.35)) <= 0.05
