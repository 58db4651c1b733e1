"""The command line: Hydra's grammar, one line for every mistake, manuals that are complete, and what is imported."""

import contextlib
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from spikeloom.pipelines import cli
from spikeloom.pipelines.commands import simulate, train
from spikeloom.pipelines.config import completion, declared, manual
from spikeloom.pipelines.config.files import groups
from spikeloom.pipelines.config.groups import GROUPS
from spikeloom.pipelines.config.register import OTHERS, VERBS, register

SHAPES = [
    *(f"pipelines.config.{target}" for target in VERBS.values()),
    *(target for kinds in GROUPS.values() for target in kinds.values()),
    *OTHERS.values(),
]
HEAVY = ("torch", "lightning", "mne", "transformers", "librosa", "matplotlib", "scipy", "sklearn", "pandas")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The configurations that train and simulate were handed; nothing is trained."""
    configs: list[object] = []
    monkeypatch.setattr(train, "run", configs.append)
    monkeypatch.setattr(simulate, "run", configs.append)
    return configs


def refused(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    """The one line that a command line is refused with."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(line))
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1, printed
    return printed.err


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("train model=5", "model=5: model must be one of its choices"),
        ("train experiment=5", "experiment=5: experiment must be one of its choices"),
        ("train optimizer=null", "choose from adamw, sgd"),
        ("train trainer=true", "trainer=true: trainer must be one of its choices"),
        ("train data=[1,2]", "data=[1,2]"),
        ("train model={a:1}", "model={a:1}"),
        ("train -m seed=range(0,3,0)", "the sweep has no values"),
        ("train -m seed=choice()", "the sweep has no values"),
        ("train -m trainer.epochs=glob(*)", "has no jobs"),
        ("train -m seed=interval(0,1)", "hydra/sweeper=optuna"),
        ("train seed=range(0,3)", "add -m"),
        ("train seed=0,1", "add -m"),
        ("train trainer=cpu,gpu", "add -m"),
        ("train +x=1", "unknown key x"),
        ("train +model.widht=3", "did you mean model.width?"),
        ("train +seed=3", "without the +"),
        ("train ~seed", "~seed: seed cannot be removed"),
        ("train ~model.width", "~model.width"),
        ("train ~nokey", "unknown key nokey"),
        ("train trainer.epoch=3", "did you mean trainer.epochs?"),
        ("train trainer.epochs=abc", "must be a whole number, got 'abc'"),
        ("train trainer.epochs=null", "trainer.epochs cannot be null"),
        ("train resume=maybe", "must be true or false, got 'maybe'"),
        ("train optimizer.lr=[1]", "must be a number"),
        ("train data=fsdd data.root=[1,2]", "data.root=[1,2]"),
        ("train experiment=spikescr_fsd", "did you mean spikescr_fsdd?"),
        ("train model=../x", "choose from"),
        ('train name="a', "quote values"),
        ("train run={a", "quote values"),
        (r"train data=words data.pattern=(?P<speaker>\d+)_", r"""'data.pattern="(?P<speaker>\d+)_"'"""),
        ("train =5", "names no key"),
        ("train seed", "write key=value"),
        ("train name=${nokey}", "nokey"),
        ("train name=${oc.env:SPIKELOOM_NOT_SET}", "SPIKELOOM_NOT_SET is not set"),
        ("train hydra.mode=FOO", "use RUN or MULTIRUN"),
        ("train --config-name nofile", "no configuration nofile.yaml"),
        ("train --config-dir /dev/null/none", "no directory /dev/null/none"),
        ("train --config-path /dev/null/none", "no directory /dev/null/none"),
        ("train --cfg jo", "one of job, hydra, all"),
        ("train --cfg", "one of job, hydra, all"),
        ("train --cfg job -m", "cannot be combined"),
        ("train --cfg job --package nope", "--package=nope"),
        ("train --resolve", "--cfg job --resolve"),
        ("train --bogus", "unknown option --bogus"),
        ("train --experimental-rerun=config.pickle", "unknown option"),
        ("train -m hydra/launcher=xyz", "no hydra/launcher called 'xyz'"),
        ("train -m hydra/launcher=ray seed=0,1", "pip install hydra-ray-launcher"),
        ("train --help model=nope", "choose from"),
        ("simulate mapping=search", "mapping.KEY=VALUE"),
        ("simulate chip=null", "cannot be null"),
        ("distill resolutions_ms=5", "resolutions_ms=[VALUE,VALUE]"),
        ("distill resolutions_ms=[a,b]", "must be a number, got 'a'"),
        ("federate +dies.3=2", "dies={1:2}"),
        ("bench nothing", "use one of env, ops"),
        ("trian", "did you mean train?"),
    ],
)
def test_every_mistake_is_one_line_with_its_value_and_a_remedy(
    line: str, named: str, ran: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refused(capsys, *line.split(" "))
    assert ran == []


def test_options_stand_anywhere_and_a_sweep_ends_in_one_table_and_no_stray_file(
    ran: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in (["-m", "seed=0,1"], ["seed=0,1", "-m"], ["run=r/${seed}", "--multirun", "seed=0,1", "name=a"]):
        ran.clear()
        cli.main(["train", *line])
        assert [config.seed for config in ran] == [0, 1]
        table = capsys.readouterr().out.splitlines()
        assert table[0].split()[:2] == ["job", "seed"] and [row.split()[:2] for row in table[1:3]] == [
            ["0", "0"],
            ["1", "1"],
        ]
    assert list(tmp_path.rglob("*")) == []


def test_plus_and_tilde_and_flags_work_as_in_any_hydra_application(
    ran: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["train", "++seed=3", "~experiment", "trainer={epochs:3}", "+hydra.job.env_set.SPIKELOOM_TRY=1"])
    assert (ran[0].seed, ran[0].trainer.epochs) == (3, 3)
    cli.main(["train", "seed=4", "--cfg=job", "-p", "trainer"])
    assert OmegaConf.create(capsys.readouterr().out).epochs == 30
    for line, found in ((["-c", "hydra"], "job:"), (["--cfg", "all"], "hydra:"), (["--hydra-help"], "== Flags ==")):
        with contextlib.suppress(SystemExit):
            cli.main(["train", *line])
        assert found in capsys.readouterr().out
    assert len(ran) == 1


def test_what_cfg_job_resolve_prints_is_the_run_again(
    ran: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", "experiment=spikescr_fsdd", "data.root=here", "pruning=lats", "pruning.sparsity=0.9", "seed=7"]
    cli.main(line)
    cli.main([*line, "--cfg", "job", "--resolve"])
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out, "utf-8")
    cli.main(["train", "--config-dir", str(tmp_path), "--config-name", "again"])
    assert ran[1] == ran[0] and "${" not in (tmp_path / "again.yaml").read_text("utf-8")

    (tmp_path / "again.yaml").write_text((tmp_path / "again.yaml").read_text("utf-8") + "sede: 3\n", "utf-8")
    message = refused(capsys, "train", "--config-dir", str(tmp_path), "--config-name", "again")
    assert "unknown key sede; did you mean seed?" in message


def test_experiments_of_ones_own_are_chosen_by_name(
    ran: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mine" / "experiment" / "small.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(
        "# @package _global_\n# A small one.\ndefaults: [spikescr_fsdd, _self_]\ntrainer: {epochs: 2}\n", "utf-8"
    )
    for option in ("--config-dir", "--config-path"):
        ran.clear()
        cli.main(["train", option, "mine", "experiment=small", "data.root=here"])
        assert ran[0].trainer.epochs == 2 and ran[0].data.source == "fsdd"
        cli.main(["train", "--help", option, "mine", "experiment=small"])
        assert "trainer.epochs=2" in capsys.readouterr().out
    own.write_text("# @package _global_\ntrainer: {epoch: 2}\n", "utf-8")
    assert "trainer.epoch" in refused(capsys, "train", "--config-dir", "mine", "experiment=small")


@pytest.mark.parametrize("path", SHAPES)
def test_keys_read_from_the_source_are_those_of_the_dataclass_and_each_is_described(path: str) -> None:
    shape = declared.shape(path)
    module, _, name = path.partition(":")
    made = getattr(import_module(f"spikeloom.{module}"), name)
    config = OmegaConf.structured(made if isinstance(made, type) else made())
    # read by Hydra in either form: tuples are lists there, and what is missing is "???"
    assert OmegaConf.to_container(OmegaConf.create(shape.values())) == OmegaConf.to_container(config)

    def silent(of: declared.Shape) -> list[str]:
        return [
            f"{of.path}.{key.name}"
            for key in of.keys.values()
            if not key.description
            and not isinstance(key.default, declared.Shape)
            and key.name not in ("kind", "source")
        ] + [
            name for key in of.keys.values() if isinstance(key.default, declared.Shape) for name in silent(key.default)
        ]

    assert silent(shape) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_manual_lists_what_hydra_composes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from hydra import compose, initialize_config_module

    register()
    with initialize_config_module("spikeloom.conf", version_base="1.3"):
        config = OmegaConf.to_container(compose(verb))

    def leaves(values: object, prefix: str) -> list[str]:
        if not isinstance(values, dict) or not values:
            return [prefix]
        return [
            leaf for key, value in values.items() for leaf in leaves(value, f"{prefix}.{key}" if prefix else str(key))
        ]

    found = manual.entries(verb)
    assert [entry.key for entry in found] == leaves(config, "")
    assert all(entry.description for entry in found)
    cli.main([verb, "--help"])
    printed = capsys.readouterr().out
    assert all(f"  {entry.key}={entry.default}" in printed for entry in found)


def test_a_manual_shows_the_keys_of_the_choices_that_are_made(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["train", "--help", "data=zuco", "features=trials", "model=cet_mae_small"])
    printed = capsys.readouterr().out
    assert "data.subjects=[]" in printed and "model.sizes.text_width=128" in printed and "n_words" not in printed
    cli.main(["train", "experiment=spikescr_shd", "--help"])
    assert "trainer.batch_size=256" in capsys.readouterr().out


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_a_group_says_what_it_is(group: str) -> None:
    from spikeloom.pipelines.config.files import describe

    for choice in groups()[group]:
        assert describe(group, choice), f"conf/{group}/{choice}.yaml has no comment that says what it is"


def test_nothing_heavy_is_imported_before_a_verb_composes_nor_by_its_manual() -> None:
    """Hydra itself, our own modules and Python's: what `spikeloom VERB` has imported when Hydra takes over."""
    code = f"""
import json, sys
from spikeloom.pipelines import cli
import hydra
heavy, found = {HEAVY!r}, {{}}
imported = lambda: [m for m in heavy if m in sys.modules]
hydra.main = lambda **given: lambda job: lambda: found.update({{given["config_name"]: imported()}})
for verb in cli.VERBS:
    cli.main([verb])
import io, contextlib
with contextlib.redirect_stdout(io.StringIO()):
    cli.main(["--help"])
    for verb in cli.VERBS:
        cli.main([verb, "--help"])
found["manuals"] = imported()
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found) == {*cli.VERBS, "manuals"}
    assert {verb: modules for verb, modules in found.items() if modules} == {}


def test_a_simulation_of_a_published_network_needs_no_heavy_library(tmp_path: Path) -> None:
    """Neither while it composes nor while it draws its report, with all that the report can hold."""
    code = f"""
import sys
from spikeloom.pipelines import cli
cli.main(["simulate", "network=s_resnet18", "batch_size=1", "out={tmp_path}"])
print([m for m in {HEAVY!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "What the saving depends on" in (tmp_path / "report.html").read_text("utf-8")


def test_a_shell_completes_verbs_keys_and_choices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        cli.main(["-sc", "query=bash"])
        return capsys.readouterr().out.split()

    assert answer("spikeloom ev") == ["evaluate"]
    assert set(answer("spikeloom ")) == set(cli.VERBS)
    assert answer("spikeloom train optimizer=") == ["optimizer=adamw", "optimizer=sgd"]
    assert answer("spikeloom train data=shd trainer.ep") == ["trainer.epochs="]
    assert "model.sizes." in answer("spikeloom train model=cet_mae_small model.si")
    assert answer("spikeloom train model=spikes") == [f"model={m}" for m in groups()["model"] if m.startswith("spikes")]
    for shell in ("bash", "zsh", "fish"):
        cli.main(["-sc", f"install={shell}"])
        assert "-sc query=" in capsys.readouterr().out
    assert "install=SHELL" in refused(capsys, "-sc", "install=tcsh")
    assert completion.words("spikeloom train seed=1 ") == ("spikeloom", "train", "seed=1 ")


def test_a_sweep_over_a_verbs_folders_is_kept_as_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: object) -> float:
        folder = Path(config.run)  # type: ignore[attr-defined]
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"test_accuracy": 0.5 + config.seed / 10, "seconds": 3.0}))  # type: ignore[attr-defined]
        return 1.5

    monkeypatch.setattr(train, "run", run)
    cli.main(["train", "-m", f"run={tmp_path}/${{seed}}", "seed=0,1"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["job", "seed", "test_accuracy", "value", "seconds"]
    assert printed[2].split() == ["1", "1", "0.6", "1.5", "3.0"]
    assert (tmp_path / "sweep.csv").read_text().splitlines()[2].startswith("1,1,0.6,1.5,3.0,")


@pytest.mark.parametrize("recipe", groups()["recipe"])
def test_a_training_setup_of_a_data_set_takes_any_model(recipe: str, ran: list[object]) -> None:
    cli.main(["train", f"recipe={recipe}", "model=small_resnet", "trainer.epochs=7"])
    cli.main(["train", f"recipe={recipe}", "model.name=spikingformer_digits"])
    for config, kind in zip(ran, ("resnet", "spiking_transformer"), strict=True):
        assert config.model.kind == kind and config.optimizer.label_smoothing == 0.1
        assert config.name == recipe
    assert ran[0].trainer.epochs == 7 and ran[1].trainer.epochs > 7
