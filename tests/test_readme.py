"""README is true: its Python runs, its commands compose, its verbs are those of `--help`, its links lead somewhere."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

import spikeloom
from spikeloom.pipelines.cli import VERBS, arguments
from spikeloom.pipelines.config.composition import launch
from spikeloom.pipelines.config.register import check_keys, register
from tests import public_runs

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("index", "training", "data", "eeg", "chip", "serve", "results", "performance")
DOCUMENTS = ("README.md", *(f"docs/{name}.md" for name in PAGES))
README = (ROOT / "README.md").read_text("utf-8")
COMPOSED: set[str] = set()  # commands that compose; many stand in several documents


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Every command of spikeloom in a document, in blocks of shell and between backticks, as one line."""
    fenced = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    code = [line for kind, block in fenced.findall(text) if kind == "sh" for line in block.splitlines()]
    code += re.findall(r"`([^`]+)`", fenced.sub("", text))
    found = [command for piece in code for command in re.findall(r"\bspikeloom [^#&]+", piece)]
    return sorted({" ".join(c.split()) for c in found if not re.search(r"\bVERB\b|--help|…", c)})


def test_python_blocks_run_in_their_order_as_after_the_commands_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    public_runs.digits(tmp_path).rename(tmp_path / "trained")
    (tmp_path / "runs/spiking_cnn_digits").mkdir(parents=True)
    (tmp_path / "trained").rename(tmp_path / "runs/spiking_cnn_digits/seed0")
    assert "spikeloom train experiment=spiking_cnn_digits" in "".join(blocks("sh"))
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)  # as a reader runs them, one after the other
    printed = capsys.readouterr().out
    assert "torch.Size([50, 4, 10])" in printed
    stated = re.search(r"# ([\d.]+ mJ)$", README, re.MULTILINE)
    assert stated and stated[1] in printed.splitlines()
    assert names["trained"].class_names == tuple("0123456789")


def test_there_is_a_python_example_and_three_commands_to_start_with() -> None:
    assert len(blocks("python")[0].strip().splitlines()) <= 10
    assert len(blocks("sh")[0].strip().splitlines()) == 3
    assert README.index("```python") < README.index("```sh")
    assert len(README.splitlines()) <= 140


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_targets_of_make_exist(line: str) -> None:
    if line.startswith("make "):
        assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_compose(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each against the schema of its verb; of a sweep the first job."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # as it is again afterwards
    register()
    found = commands((ROOT / document).read_text("utf-8"))
    assert found
    for command in found:
        if command in COMPOSED:
            continue
        _, verb, *rest = shlex.split(command)
        assert verb in VERBS, command
        sweeps = "-m" in rest
        options, overrides = arguments(verb, [word for word in rest if word != "-m"])
        if sweeps:
            overrides = [re.sub(r"^([\w.]+=[^\[,]+),.*$", r"\1", override) for override in overrides]
        composed: list[Any] = []
        if options or document == "README.md":
            launch(verb, options, overrides, composed.append, None)
        else:  # without the search for a mode, in which Hydra composes everything twice
            with initialize_config_module("spikeloom.conf", version_base="1.3"):
                values = compose(verb, overrides=overrides, return_hydra_config=True)
            HydraConfig.instance().set_config(values)
            with open_dict(values):
                del values["hydra"]
            check_keys(values, verb)
            composed.append(OmegaConf.to_object(values))
        assert len(composed) == 1, command
        COMPOSED.add(command)


def test_the_table_of_verbs_is_that_of_help() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \| `spikeloom \1\b", README, re.MULTILINE))
    assert rows == VERBS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\(([^)#]+)", path.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (path.parent / link).is_file()] == []


def test_models_and_data_sets_named_in_the_tables_exist() -> None:
    models = README.split("## Models")[1].split("## Data")[0]
    experiments = [path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")]
    names = re.findall(r"`((?:\w+)\*?)`", re.sub(r"`train pruning=`.*", "", models))
    known = [*spikeloom.list_models(), *experiments, *VERBS]
    for name in names:
        pattern = re.compile(name.replace("*", ".*"))
        assert any(pattern.fullmatch(one) for one in known), name
    data = (ROOT / "docs/data.md").read_text("utf-8")
    listed = [name for row in re.findall(r"^\| (`.*?) \|", data, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    present = {path.stem for path in (ROOT / "conf/data").glob("*.yaml")}
    assert len(listed) > 10 and set(listed) - present == {"eeg"}  # a folder of recordings, not a preset
    rules = re.search(r"`train pruning=` takes (.*)\.", README)
    assert rules and set(re.findall(r"`(\w+)`", rules[1])) | {"none"} == {
        path.stem for path in (ROOT / "conf/pruning").glob("*.yaml")
    }
