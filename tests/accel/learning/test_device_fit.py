"""A device is found again from pulses it was simulated with; tables that are no pulses are refused by line."""

import math
from pathlib import Path

import pytest
import torch

from spikeloom.accel.learning.stochastic.device_fit import fit_device, read_trace
from spikeloom.accel.learning.stochastic.devices import DEVICES, Device, depression, noisy, potentiation


def trace_of(device: Device, path: Path, *, noise: float, sweeps: int, seed: int = 0) -> Path:
    """Sweeps of pulses from one bound to the other and back, as a table."""
    generator = torch.Generator().manual_seed(seed)
    low, high = device.g_min_siemens, device.g_max_siemens
    lines, g = ["device,direction,conductance_siemens"], torch.tensor([low], dtype=torch.float64)
    for sweep in range(sweeps):
        for direction, pulses, alpha in (
            ("up", device.pulses_up, device.alpha_up), ("down", device.pulses_down, device.alpha_down),
        ):  # fmt: skip
            if not pulses:
                continue
            g = torch.tensor([low if direction == "up" else high], dtype=torch.float64)
            lines.append(f"{sweep},start,{float(g)!r}")
            for _ in range(pulses):
                law = potentiation if direction == "up" else depression
                g = (g + noisy(law(g, low, high, alpha, pulses), noise, generator)).clamp(low, high)
                lines.append(f"{sweep},{direction},{float(g)!r}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["ecram", "epiram_3", "epiram_2", "oxram"])
def test_a_device_without_noise_is_found_exactly(name: str, tmp_path: Path) -> None:
    device = DEVICES[name]
    trace = read_trace(trace_of(device, tmp_path / "trace.csv", noise=0.0, sweeps=2))
    found, fits = fit_device(trace, name, "simulated", read_volts=device.read_volts)
    assert found.writing == device.writing
    assert found.g_max_siemens == pytest.approx(device.g_max_siemens)
    assert found.g_min_siemens == pytest.approx(device.g_min_siemens, rel=1e-3)
    for way, fit in fits.items():
        assert fit.alpha == pytest.approx(getattr(device, f"alpha_{way}"), rel=1e-3)
        assert fit.pulses == getattr(device, f"pulses_{way}")
        assert fit.gamma < 1e-3 and fit.residual < 1e-6 and fit.explained > 0.999


def test_a_straight_device_has_no_curvature(tmp_path: Path) -> None:
    straight = Device(**{**vars(DEVICES["ecram"]), "alpha_up": 0.0, "alpha_down": 0.0})
    _, fits = fit_device(
        read_trace(trace_of(straight, tmp_path / "a.csv", noise=0.0, sweeps=1)), "a", "", read_volts=0.1
    )
    assert all(fit.alpha < 1e-3 and fit.pulses == 55 for fit in fits.values())


def test_noise_is_found_with_the_curve(tmp_path: Path) -> None:
    device = DEVICES["ecram"]
    trace = read_trace(trace_of(device, tmp_path / "a.csv", noise=0.3, sweeps=200))
    bounds = {"g_min": device.g_min_siemens, "g_max": device.g_max_siemens}
    _, fits = fit_device(trace, "a", "", read_volts=0.1, **bounds)
    for fit in fits.values():
        assert fit.gamma == pytest.approx(0.3, abs=0.02)
        assert fit.alpha == pytest.approx(0.5, abs=0.15)
        assert fit.pulses == pytest.approx(55, abs=3)
        assert fit.left_out > 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("direction,conductance_us\nup,3\n", "conductance_siemens"),
        ("direction,conductance_siemens\nup,3000\n", "line 2: conductance_siemens is '3000'"),
        ("direction,conductance_siemens\nup,nan\n", "line 2"),
        ("direction,conductance_siemens\nsideways,1e-6\n", "line 2: direction 'sideways'"),
        ("direction,conductance_siemens\nup,1e-6\n", "no pulse"),
        ("", "no column"),
    ],
)
def test_a_table_that_holds_no_pulses_is_refused(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=named) as error:
        read_trace(path)
    assert str(path) in str(error.value)


def test_pulses_that_lead_the_other_way_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = "".join(f"up,{(20 - i) * 1e-6!r}\n" for i in range(20))
    path.write_text("direction,conductance_siemens\nstart,2.1e-5\n" + rows, encoding="utf-8")
    with pytest.raises(ValueError, match="exchange up and down"):
        fit_device(read_trace(path), "a", "", read_volts=0.1)


def test_a_device_needs_every_setting_of_its_kind() -> None:
    values = dict(vars(DEVICES["pcm"]))
    assert Device.from_values(values, "a.yaml") == DEVICES["pcm"]
    for changed, named in (
        ({"pulses_up": 2.5}, "pulses_up"), ({"gamma_up": "much"}, "gamma_up"), ({"writing": "both"}, "writing"),
        ({"colour": "red"}, "colour"), ({"alpha_up": math.nan}, "alpha_up"), ({"pulses_up": True}, "pulses_up"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^a\.yaml: .*{named}"):
            Device.from_values(values | changed, "a.yaml")
    with pytest.raises(ValueError, match=r"^a\.yaml: "):
        Device.from_values(["pcm"], "a.yaml")
