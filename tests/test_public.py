"""`import spikeloom`: light, complete, documented, and equal to what the verbs of the command line do."""

import doctest
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import spikeloom
from spikeloom.pipelines.api.models import _presets
from spikeloom.pipelines.domains import domain_of
from spikeloom.pipelines.training.run_dir import load_config
from tests import public_runs

ROOT = Path(__file__).resolve().parents[1]
FUNCTIONS = [name for name in spikeloom.__all__ if name != "__version__"]
HEAVY = ("torch", "transformers", "lightning", "mne", "hydra", "numpy", "matplotlib", "scipy", "librosa")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/NAME of every kind of model."""
    folder = tmp_path_factory.mktemp("project")
    torch.manual_seed(0)
    for write in public_runs.ALL.values():
        write(folder / "runs")
    return folder


# --- the import -------------------------------------------------------------------------------------------------------


def in_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)


def test_import_loads_no_large_library() -> None:
    program = "import sys, json, spikeloom; dir(spikeloom); print(json.dumps(sorted(sys.modules)))"
    done = in_python(program)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert loaded.isdisjoint(HEAVY)
    assert not {name for name in loaded if name.startswith("spikeloom.")} - {
        "spikeloom._environment",
        "spikeloom._torchaudio",
    }


def test_import_computes_for_less_than_three_tenths_of_a_second() -> None:
    program = "import time; t = time.process_time(); import spikeloom; print(time.process_time() - t)"
    assert min(float(in_python(program).stdout) for _ in range(3)) < 0.3


def test_every_public_name_resolves_and_is_listed() -> None:
    assert set(spikeloom.__all__) <= set(dir(spikeloom))
    assert all(callable(getattr(spikeloom, name)) for name in FUNCTIONS)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = spikeloom.lod
    assert len((ROOT / "spikeloom/__init__.py").read_text("utf-8").splitlines()) < 80


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_docstring_tells_arguments_result_errors_and_an_example(name: str) -> None:
    function = getattr(spikeloom, name)
    text = inspect.getdoc(function) or ""
    assert [part for part in ("Returns:", "Example") if part not in text] == []
    arguments = inspect.signature(function).parameters
    assert [a for a in arguments if f"{a}:" not in text] == []
    assert not arguments or "Args:" in text
    assert "Raises:" in text or name == "list_models"


def public_modules() -> list[str]:
    """Modules behind the public names; the examples of `hub` need a hub, and are run in test_run_names.py."""
    inside = [f"spikeloom.pipelines.api.{f.stem}" for f in (ROOT / "pipelines" / "api").glob("*.py")]
    return sorted({*inside, *spikeloom._HOMES.values()} - {"spikeloom.pipelines.api.__init__"})


@pytest.mark.parametrize("name", public_modules())
def test_public_module_lists_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert all(hasattr(module, public) for public in module.__all__)
    assert module.__doc__


@pytest.mark.parametrize("name", [name for name in public_modules() if not name.endswith(".hub")])
def test_examples_in_docstrings_run(name: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)
    module = importlib.import_module(name)
    assert module.__doc__
    tests = doctest.DocTestFinder().find(module, name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_transformers_models_that_need_torchaudio_import_after_spikeloom() -> None:
    done = in_python("import spikeloom; from transformers import BertModel; import torchaudio; print(BertModel)")
    assert done.returncode == 0, done.stderr
    assert "BertModel" in done.stdout


@pytest.mark.parametrize("error", ["OSError", "RuntimeError"])
def test_torchaudio_whose_extension_does_not_load_says_so_where_it_is_needed(error: str) -> None:
    program = """
import spikeloom, torch
from importlib.machinery import SourceFileLoader
broken = SourceFileLoader.exec_module
def exec_module(self, module):
    if module.__name__ == "torchaudio._extension":
        raise ERROR("libcudart.so is missing")
    broken(self, module)
SourceFileLoader.exec_module = exec_module
import torchaudio
from torchaudio.functional import forced_align
assert not torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE
try:
    forced_align(torch.zeros(1, 2, 3), torch.zeros(1, 1))
except RuntimeError as error:
    print(error)
"""
    done = in_python(program.replace("ERROR", error))
    assert done.returncode == 0, done.stderr
    assert "forced_align needs the compiled extension of torchaudio" in done.stdout
    assert "libcudart.so is missing" in done.stdout


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", spikeloom.list_models())
def test_every_model_is_made_by_its_name(name: str) -> None:
    with torch.device("meta"):  # shapes without memory: the largest have 400 million parameters
        model = spikeloom.create_model(name)
    count = sum(p.numel() for p in model.parameters()) if isinstance(model, torch.nn.Module) else model.parameters
    assert count > 1000


def test_names_are_those_of_the_presets_the_kinds_and_the_published_transformers() -> None:
    names = spikeloom.list_models()
    assert {f.stem for f in (ROOT / "conf" / "model").glob("*.yaml")} == set(_presets()) <= set(names)
    assert {"spikescr", "cet_mae", "e2t_ptr", "resnet", "stochastic", "spikingformer_8_768"} <= set(names)
    assert spikeloom.list_models("ms_qkformer_hst_2*") == [
        "ms_qkformer_hst_2_256_cifar10dvs", "ms_qkformer_hst_2_256_dvs128",
    ]  # fmt: skip


def test_sizes_and_options_arrive_in_the_model() -> None:
    speech = spikeloom.create_model("spikescr_2l_16_256", n_inputs=40, n_outputs=7, width=64, heads=2)
    assert (speech.n_inputs, speech.n_classes) == (40, 7)
    assert (speech.config.width, speech.config.depth, speech.config.mlp_ratio) == (64, 2, 4)
    pictures = spikeloom.create_model("small_ms_qkformer", n_inputs=1, n_outputs=4, T=3)
    assert pictures(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
    assert pictures.T == 3
    eeg = spikeloom.create_model("e2t_ptr_greedy", sizes="cet_mae_planted", n_outputs=300)
    assert eeg.vocab_size == 300
    assert eeg.config.width == 64
    assert spikeloom.create_model("spikingformer_4_384", n_outputs=100).num_classes == 100


@pytest.mark.parametrize(
    ("name", "options", "error", "remedy"),
    [
        ("spikscr", {}, ValueError, "did you mean 'spikescr'"),
        ("spikescr", {"widht": 3}, TypeError, "width"),
        ("spikescr", {"width": "wide"}, ValueError, "value of that type"),
        ("resnet", {"size": 32}, TypeError, "leave size out"),
        ("cet_mae_small", {"n_inputs": 3}, TypeError, "leave n_inputs out"),
        ("cet_mae_small", {"pretraining": {}}, TypeError, "no option pretraining"),
        ("e2t_ptr", {"sizes": "resnet"}, ValueError, "use one of cet_mae_full"),
        ("resnet", {"sizes": "cet_mae_full"}, TypeError, "leave it out"),
        ("spikingformer_4_384", {"colour": 3}, TypeError, "colour"),
    ],
)
def test_wrong_name_or_option_is_refused_with_the_remedy(
    name: str, options: dict[str, object], error: type[Exception], remedy: str
) -> None:
    with pytest.raises(error) as caught:
        spikeloom.create_model(name, **options)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


# --- trained models ---------------------------------------------------------------------------------------------------


def test_load_reads_run_and_model_folder_alike(runs: Path) -> None:
    for name in public_runs.ALL:
        run = runs / "runs" / name
        by_run, by_folder = spikeloom.load(run), spikeloom.load(run / "model")
        assert by_run.class_names == by_folder.class_names
        assert by_run.features == by_folder.features
        pairs = zip(by_run.model.state_dict().items(), by_folder.model.state_dict().items(), strict=True)
        assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
        assert not by_run.model.training


def test_missing_run_and_unfinished_run_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such run directory"):
        spikeloom.load(tmp_path / "typo")
    with pytest.raises(ValueError, match="holds no trained model"):
        spikeloom.load(tmp_path)


def test_pictures_are_classified_as_evaluate_classifies_them(runs: Path, tmp_path: Path) -> None:
    run = runs / "runs" / "digits"
    trained, config = spikeloom.load(run), load_config(run)
    domain = domain_of(config.data)
    samples = config.data.build().test.select(np.arange(70))
    log_p = domain.predict(trained.model, domain.prepare(trained, samples))
    pictures = [np.round(samples.content[i] * (255 / samples.full_scale)).astype(np.uint8) for i in range(70)]
    found = spikeloom.pipeline(run)(pictures)
    expected = log_p.exp()
    probabilities = torch.tensor([[p.probabilities[name] for name in trained.class_names] for p in found])
    torch.testing.assert_close(probabilities, expected, atol=0.02, rtol=0)  # 16 levels become 256
    assert [p.label for p in found] == [max(p.probabilities, key=p.probabilities.__getitem__) for p in found]
    Image.fromarray(pictures[0]).save(tmp_path / "digit.png")
    recognise = spikeloom.pipeline(run)
    by_file, by_image = recognise(tmp_path / "digit.png"), recognise(Image.fromarray(pictures[0]))
    assert by_file.probability == by_image.probability == pytest.approx(found[0].probability, abs=1e-6)


def test_binary_stochastic_run_classifies_as_evaluate_does(runs: Path) -> None:
    run = public_runs.stochastic(runs / "runs")
    expected = spikeloom.evaluate(run, split="valid")["accuracy"]
    samples = load_config(run).data.build().valid
    pictures = [np.round(samples.content[i] * (255 / samples.full_scale)).astype(np.uint8) for i in range(len(samples))]
    labels = [p.label for p in spikeloom.pipeline(run)(pictures)]
    right = [label == samples.class_names[k] for label, k in zip(labels, samples.labels, strict=True)]
    assert np.mean(right) == pytest.approx(expected, abs=0.02)  # 16 levels become 256
    (run / "model/model.safetensors").unlink()
    with pytest.raises(ValueError, match="does not hold the network"):
        spikeloom.load(run)


def test_waveforms_and_files_are_classified_as_evaluate_classifies_them(runs: Path, tmp_path: Path) -> None:
    run = runs / "runs" / "words"
    trained, config = spikeloom.load(run), load_config(run)
    domain = domain_of(config.data)
    clips = config.data.build().test
    log_p = domain.predict(trained.model, domain.prepare(trained, clips))
    recognise = spikeloom.pipeline(run)
    found = recognise([clips.waveforms[i] for i in range(len(log_p))], sample_rate_hz=clips.sample_rate_hz)
    probabilities = torch.tensor([list(p.probabilities.values()) for p in found])
    torch.testing.assert_close(probabilities, log_p.exp(), atol=1e-5, rtol=0)
    soundfile.write(tmp_path / "word.wav", clips.waveforms[0], clips.sample_rate_hz, subtype="FLOAT")
    assert recognise(tmp_path / "word.wav").probability == pytest.approx(found[0].probability, abs=1e-5)


def test_spike_trains_are_classified_one_by_one_or_together(runs: Path) -> None:
    rng = np.random.default_rng(0)
    clips = [(np.sort(rng.random(n)), rng.integers(0, 700, n)) for n in (50, 200)]
    recognise = spikeloom.pipeline(runs / "runs" / "spikes")
    together, alone = recognise(clips), [recognise(clip) for clip in clips]
    assert [p.label for p in together] == [p.label for p in alone]
    for a, b in zip(together, alone, strict=True):
        assert a.probability == pytest.approx(b.probability, abs=1e-5)


def test_event_recordings_are_classified_from_files(runs: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 400
    time = np.sort(rng.integers(0, 300_000, n))
    packed = np.stack([rng.integers(0, 34, n), rng.integers(0, 34, n), (time >> 16) | (rng.integers(0, 2, n) << 7),
                       (time >> 8) & 255, time & 255], axis=1)  # fmt: skip
    path = tmp_path / "events.bin"
    path.write_bytes(packed.astype(np.uint8).tobytes())
    from spikeloom.vision.datasets.readers import read_events

    recognise = spikeloom.pipeline(runs / "runs" / "events")
    by_file, by_recording = recognise(path), recognise(read_events(path))
    assert by_file == by_recording
    assert sum(by_file.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_eeg_is_decoded_to_text(runs: Path) -> None:
    rng = np.random.default_rng(0)
    read = spikeloom.pipeline(runs / "runs" / "decoder")
    tokens = rng.standard_normal((12, 840))
    text = read(tokens)
    assert isinstance(text, str)
    assert read([tokens, tokens]) == [text, text]
    from spikeloom.pipelines.eeg.listen import decoder_of

    decode, _ = decoder_of(runs / "runs" / "decoder")
    given = torch.from_numpy(tokens.astype(np.float32))[:, None]
    assert text == decode(given, torch.ones(12, 1, dtype=torch.bool))
    assert isinstance(read(20 * rng.standard_normal((105, 2500)), reject_uv=500.0), str)


@pytest.mark.parametrize(
    ("run", "given", "context", "remedy"),
    [
        ("words", np.zeros(8000), {}, "add sample_rate_hz="),
        ("words", np.zeros((2, 8000)), {"sample_rate_hz": 8000}, "average its channels"),
        ("words", np.zeros(8000, dtype=np.int16), {"sample_rate_hz": 8000}, "divide whole numbers"),
        ("words", np.full(8000, 3e4), {"sample_rate_hz": 8000}, "scale or repair"),
        ("words", np.full(8000, np.nan), {"sample_rate_hz": 8000}, "scale or repair"),
        ("words", "missing.wav", {}, "no such file"),
        ("spikes", (np.zeros(3), np.array([0, 1, 700])), {}, "number them alike"),
        ("spikes", (np.zeros(3), np.zeros(2)), {}, "times in seconds"),
        ("digits", np.zeros((16, 16)), {}, "0…255"),
        ("digits", np.zeros((3, 16, 16), dtype=np.uint8), {}, "colours last"),
        ("digits", "missing.png", {}, "no such file"),
        ("events", np.zeros(3), {}, "a file or a Recording"),
        ("decoder", np.zeros((64, 1000)), {}, "interpolate it onto the net"),
        ("decoder", np.full((105, 2500), 1e-5), {}, "multiply by 1e6"),
        ("decoder", np.full((105, 2500), np.nan), {}, "all finite"),
        ("decoder", np.random.default_rng(0).normal(0, 1e4, (105, 2500)), {}, "raise reject_uv"),
    ],
)
def test_input_that_cannot_be_used_is_refused_with_the_remedy(
    runs: Path, run: str, given: object, context: dict[str, object], remedy: str
) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        spikeloom.pipeline(runs / "runs" / run)(given, **context)
    assert remedy in str(caught.value)


def test_sound_longer_than_a_clip_is_named(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    spikeloom.pipeline(runs / "runs" / "words")(0.1 * np.ones(40_000), sample_rate_hz=16_000)
    assert "one clip of it is used" in caplog.text
