"""Networks that learn binary-stochastically, from the command line: a whole run folder, exact resume, honest tables."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spikeloom.pipelines.cli import main

TINY = ["experiment=bs_digits", "model.hidden=[12]", "model.repeats=[1,3]", "trainer.threads=1"]


def train(run: Path, *overrides: str) -> dict:
    main(["train", *TINY, f"run={run}", *overrides])
    return json.loads((run / "result.json").read_text("utf-8"))


def test_a_run_leaves_everything_a_user_looks_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(tmp_path / "a", "trainer.epochs=12")
    assert result["hp"] >= 0.8 and result["test_accuracy"] == result["hp"] and result["epochs"] == 12
    assert result["train_images"] == 1437 and result["test_images"] == 360 and result["policy"] == "S,S,S"
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        "checkpoints", "config.yaml", "metrics.csv", "model", "report.html", "result.json"
    }  # fmt: skip
    assert len((tmp_path / "a" / "metrics.csv").read_text().splitlines()) == 13
    page = (tmp_path / "a" / "report.html").read_text("utf-8")
    for part in ("Inference", "Energy by count", "random draws", "accumulators", "Horowitz", "digital / stochastic"):
        assert part in page

    main(["evaluate", f"run={tmp_path / 'a'}", f"out={tmp_path / 'e.json'}"])
    scores = json.loads((tmp_path / "e.json").read_text("utf-8"))
    assert scores["accuracy"] == result["hp"] and set(scores["energy_pj"]) == {"digital", "analog", "stochastic"}
    assert scores["energy_pj"]["stochastic"]["random draws"] > 0
    assert "nJ an inference" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_exactly(tmp_path: Path) -> None:
    kind = ["model.weights=pcm", "model.rule.update=carry", "model.repeats=[1]"]
    train(tmp_path / "short", *kind, "trainer.epochs=1")
    (tmp_path / "short" / "result.json").unlink()
    resumed = train(tmp_path / "short", *kind, "trainer.epochs=2", "resume=true")
    unbroken = train(tmp_path / "long", *kind, "trainer.epochs=2")
    a, b = (load_file(tmp_path / n / "model" / "model.safetensors") for n in ("short", "long"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert (tmp_path / "short" / "metrics.csv").read_text() == (tmp_path / "long" / "metrics.csv").read_text()
    assert {k: v for k, v in resumed.items() if k != "seconds"} == {k: v for k, v in unbroken.items() if k != "seconds"}


def test_measured_pulses_become_a_device_that_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    up = "".join(f"up,{i * 1e-6!r}\n" for i in range(1, 41))
    down = "".join(f"down,{(40 - i) * 1e-6!r}\n" for i in range(1, 21))
    (tmp_path / "trace.csv").write_text(f"direction,conductance_siemens\nstart,0\n{up}{down}", encoding="utf-8")
    device = tmp_path / "mine.yaml"
    main(["data", "devices", f"file={tmp_path / 'trace.csv'}", f"out={device}"])
    printed = capsys.readouterr().out
    assert "mine: pot_dep, 0 to 4e-05 siemens" in printed and "up: 40 pulses" in printed and "residual" in printed

    kind = [f"model.weights={device}", "model.rule.update=carry", "model.repeats=[1]", "trainer.epochs=1"]
    result = train(tmp_path / "a", *kind)
    assert result["weights"] == "mine" and result["pulses_up"] > 0
    device.unlink()  # a run needs the file no more
    main(["evaluate", f"run={tmp_path / 'a'}", f"out={tmp_path / 'e.json'}"])
    assert json.loads((tmp_path / "e.json").read_text("utf-8"))["accuracy"] == result["hp"]
    device.write_text("name: mine\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        train(tmp_path / "b", *kind)
    assert f"{device}: " in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_training_starts_from_a_network_of_real_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = train(tmp_path / "hp", "trainer.epochs=20", "model.policy={forward:hp,error:hp,derivative:hp}")
    fresh = train(tmp_path / "fresh", "trainer.epochs=1")
    warm = train(tmp_path / "warm", "trainer.epochs=1", f"pretrained={tmp_path / 'hp'}")
    assert warm["hp"] > max(fresh["hp"], before["hp"] - 0.1)
    for keys, named in (
        (["model.hidden=[13]"], "other layers"),
        (["model.weights=pcm", "model.rule.update=carry"], "model.weights=pcm"),
    ):
        with pytest.raises(SystemExit):
            train(tmp_path / "odd", *keys, f"pretrained={tmp_path / 'hp'}")
        assert named in capsys.readouterr().err


def test_a_sweep_over_policies_ends_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for policy in (("hp", "hp", "hp"), ("s", "sign", "s")):
        keys = [f"model.policy.{k}={v}" for k, v in zip(("forward", "error", "derivative"), policy, strict=True)]
        for seed in (0, 1)[: 1 + (policy[0] == "s")]:
            train(tmp_path / f"{'-'.join(policy)}" / f"seed{seed}", *keys, f"seed={seed}", "trainer.epochs=1")
    table = capsys.readouterr().out.split("mean ± sd over seeds")[-1]
    assert "HP,HP,HP" in table and "S,S,S" in table and "±" in table


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.weights=gold"], "weights=gold is unknown; use real, int8"),
        (["model.weights=pcm"], "weights=pcm take pulses, rule.update is real; use carry"),
        (["model.policy.forward=maybe"], "policy.forward is 'maybe'; use one of hp, s, b"),
        (["model.rule.theta=0"], "rule.theta is 0"),
        (["features.mean=[0.5]"], "a probability lies in [0, 1]"),
        (["model.energy=none.yaml"], "model.energy=none.yaml is neither a preset"),
        (["pruning=lats"], "pruning"),
    ],
)
def test_a_wrong_setting_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", *TINY, f"run={tmp_path / 'x'}", *overrides])
    line = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and message in line and "\n" not in line


def test_the_bench_times_every_kind_of_weights(monkeypatch, capsys):
    from spikeloom.benchmarks import stochastic as bench

    monkeypatch.setattr(bench, "IMAGES", 2000)
    bench.print_stochastic(repeats=1)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["real", "100"], ["pcm", "64"], ["epiram_3", "64"]]
    assert rows[0][3] == "1.00" and all(float(row[2]) > 0 for row in rows)
