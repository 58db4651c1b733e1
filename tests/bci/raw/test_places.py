"""Electrodes are found whatever their spelling, unit and frame of place; a dead channel is told from a reference."""

from collections.abc import Callable

import mne
import numpy as np
import pytest

from spikeloom.bci.raw.channels import system
from spikeloom.bci.raw.recordings import onto_net
from tests.bci.raw.test_recordings import named, net_raw

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


def smooth(names: list[str]) -> mne.io.RawArray:
    """Electrodes of the 10-05 system with places, potentials smooth over the scalp."""
    raw = named(names).set_montage(system())
    at = np.array([c["loc"][:3] for c in raw.info["chs"]]) - [0, 0, 0.045]
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
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


def test_names_of_ten_twenty_are_known_in_every_spelling() -> None:
    for spell in ("EEG{}", "EEG_{}", "POL {}", "{}_Ref", "EEG-{}-A1"):
        assert "19 electrodes interpolated" in onto_net(named([spell.format(name) for name in TWENTY]), "x").how
