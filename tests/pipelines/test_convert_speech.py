"""Released weights of SpikCommander become a run that loads, and weights that do not fit are named with their file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spikeloom.pipelines.commands import convert
from spikeloom.pipelines.config.convert import ConvertConfig
from spikeloom.pipelines.training.run_dir import load_config, load_model
from spikeloom.speech.models.released import released_tensors
from spikeloom.speech.models.spikcommander import SpikCommander, SpikCommanderConfig
from tests.golden import golden_files

FORMS = {
    "shd": SpikCommanderConfig(width=32, heads=2),
    "ssc": SpikCommanderConfig(form="ssc", width=32, heads=2, mlp_ratio=2, depth=2),
    "gsc": SpikCommanderConfig(form="gsc", width=32, heads=4, mlp_ratio=2, global_steps=10),
}


def checkpoint(folder: Path, model: SpikCommander, **renamed: str) -> Path:
    state = {k: v.clone() for k, v in released_tensors(model.state_dict(), model).items()}
    for old, new in renamed.items():
        state = {k.replace(old, new): v for k, v in state.items()}
    save_file(state, folder / "released.safetensors")
    return folder / "released.safetensors"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("renamed", [{}, {"see": "spike_embed", "scrmlp": "mlp"}], ids=["source", "checkpoint"])
def test_released_weights_of_every_form_and_both_names_become_a_run(
    tmp_path: Path, form: str, renamed: dict[str, str]
) -> None:
    model = FORMS[form].build(140, 5).eval()
    path = checkpoint(tmp_path, model, **renamed)
    convert.run(ConvertConfig(checkpoint=str(path), out=str(tmp_path / "run")))
    trained = load_model(tmp_path / "run" / "model")
    x = torch.rand(20, 2, 140)
    assert torch.equal(trained.model(x), model(x))
    assert trained.model.config == model.config
    assert trained.class_names == tuple(f"class {i}" for i in range(5))
    assert load_config(tmp_path / "run").data.source == form


@pytest.mark.golden
def test_the_sizes_of_golden_weights_are_found() -> None:
    from spikeloom.speech.models.released import convert as converted

    for golden in golden_files("spikcommander_*.safetensors"):
        c, config = golden.json("config"), converted(golden.under("state")).config
        found = (config.form, config.width, config.heads, config.depth, config.mlp_ratio)
        assert found == (c["dataset"], c["n_hidden"], c["num_heads"], c["depth"], c["mlp_ratio"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("head.", "tail.", "head.weight"), ("fc1_linear", "fc3_linear", "fc1_linear"), ("see.bn1", "see.bn9", "bn9")],
)
def test_weights_that_do_not_fit_are_named_with_their_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = checkpoint(tmp_path, FORMS["shd"].build(140, 5), **{old: new})
    with pytest.raises(ValueError, match=rf"released\.safetensors: .*{message}"):
        convert.run(ConvertConfig(checkpoint=str(path), out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
