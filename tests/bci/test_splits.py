"""No sentence and no neighbour in time on both sides; files that tell when they are not the ones; leaks counted."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from spikeloom.bci.zuco import leakage
from spikeloom.bci.zuco.materials import TASK_LISTS, read_materials
from spikeloom.bci.zuco.records import Recording, Sentence
from spikeloom.bci.zuco.splits import DROPPED, SPLITS, Row, Split, SplitConfig, load_split, row_of, rows_of_materials
from spikeloom.bci.zuco.text import normalise
from tests.conftest import data_folder

READERS = {"SR1": 3, "NR1": 3, "NR2": 4}


def task_lists() -> dict[str, list[str]]:
    """Three lists of 150, 120 and 130 sentences; NR2 repeats every tenth sentence of NR1, spelt otherwise."""
    made = {task: [f"{task} sentence {i}." for i in range(n)] for task, n in (("SR1", 150), ("NR1", 120), ("NR2", 130))}
    for i in range(0, 120, 10):
        made["NR2"][129 - i] = made["NR1"][i].upper().replace(" ", " - ")
    return made


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return rows_of_materials(task_lists(), READERS)


@pytest.fixture(scope="module")
def by_run(rows: list[Row]) -> Split:
    return SplitConfig(seed=1).build(rows)


@pytest.mark.parametrize("unit", ["run", "key"])
@pytest.mark.parametrize("seed", range(4))
def test_a_sentence_has_one_fate_in_all_tasks_and_spellings(rows: list[Row], unit: str, seed: int) -> None:
    split = SplitConfig(unit=unit, seed=seed).build(rows)
    sides = {name: {normalise(rows[i].text) for i in split.select(rows, name)} for name in SPLITS}
    assert not sides["train"] & sides["test"] and not sides["train"] & sides["valid"]
    assert not sides["valid"] & sides["test"]
    assert all(sides.values())
    assert sum(split.counts.values()) == len(rows)
    assert all(pair.n_shared == 0 for pair in leakage.check_split(split))


@pytest.mark.parametrize("seed", range(6))
def test_ten_sentences_on_either_side_of_a_held_out_one_are_not_learnt_from(rows: list[Row], seed: int) -> None:
    split = SplitConfig(seed=seed).build(rows)
    for task in READERS:
        fates = {row.index: split.of(row.text) for row in rows if row.task == task}
        train = np.array([i for i, fate in fates.items() if fate == "train"])
        held_out = np.array([i for i, fate in fates.items() if fate in ("valid", "test")])
        if len(held_out):
            assert np.abs(train[:, None] - held_out).min() > 10, task


def test_test_and_valid_come_in_runs_of_twenty_five(by_run: Split, rows: list[Row]) -> None:
    runs = []
    for task in READERS:
        fates = [by_run.of(row.text) for row in rows if row.task == task and row.subject == "reader0"]
        edges = [0, *(i for i in range(1, len(fates)) if fates[i] != fates[i - 1]), len(fates)]
        runs += [(fates[a], b - a) for a, b in zip(edges, edges[1:], strict=False) if fates[a] in ("valid", "test")]
    assert {name for name, length in runs if length == 25} == {"valid", "test"}


def test_dropped_rows_are_only_those_near_a_held_out_one(by_run: Split, rows: list[Row]) -> None:
    places = {(row.task, row.index): by_run.of(row.text) for row in rows}
    near = set()
    for (task, i), fate in places.items():
        if fate in ("valid", "test"):
            near |= {normalise(r.text) for r in rows if r.task == task and abs(r.index - i) <= 10}
    dropped = {key for key, fate in by_run.keys.items() if fate.split == DROPPED}
    assert dropped == {key for key in near if by_run.keys[key].split not in ("valid", "test")}


def test_shares_by_key_are_exact_within_each_corpus(rows: list[Row]) -> None:
    split = SplitConfig(unit="key", seed=3).build(rows)
    for film, n in ((True, 150), (False, 238)):
        fates = [fate.split for fate in split.keys.values() if (fate.tasks == ("SR1",)) == film]
        assert len(fates) == n
        assert [fates.count(name) for name in ("valid", "test")] == [round(0.1 * n)] * 2


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_rows(rows: list[Row], tmp_path: Path) -> None:
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    for unit in ("run", "key"):
        SplitConfig(unit=unit).build(rows).save(tmp_path / unit)
        SplitConfig(unit=unit).build(shuffled).save(tmp_path / "again" / unit)
        for name in ("keys.csv", "split.json"):
            assert (tmp_path / unit / name).read_bytes() == (tmp_path / "again" / unit / name).read_bytes()
    assert SplitConfig(seed=5).build(rows).keys != SplitConfig(seed=6).build(rows).keys


def test_a_split_comes_back_from_its_files(by_run: Split, rows: list[Row], tmp_path: Path) -> None:
    by_run.save(tmp_path)
    loaded = load_split(tmp_path)
    assert loaded == by_run
    loaded.check(rows)
    described = json.loads((tmp_path / "split.json").read_text())
    assert described["config"]["seed"] == 1
    assert described["rows"] == dict(by_run.counts)


def test_a_changed_table_is_refused(by_run: Split, tmp_path: Path) -> None:
    by_run.save(tmp_path)
    table = tmp_path / "keys.csv"
    table.write_text(table.read_text("utf-8").replace(",test,", ",train,", 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"keys\.csv was changed"):
        load_split(tmp_path)
    table.unlink()
    with pytest.raises(ValueError, match=r"keys\.csv is missing"):
        load_split(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"key,split,n_rows,tasks,text\r\na sentence ", "line 2: 1 cells, not 5"),
        (b"key,split,n_rows,tasks,text\r\na,train,many,NR1,a\r\n", "line 2: n_rows is 'many'"),
        (b"key,split,n_rows,tasks,text\r\na,train,1,NR1,\xed\r\n", "is not UTF-8"),
        (b"key,split\r\na,train\r\n", "line 1: the columns are"),
        (b"key,split,n_rows,tasks,text\r\n", "holds no sentence"),
    ],
)
def test_a_damaged_table_names_its_line(content: bytes, message: str, by_run: Split, tmp_path: Path) -> None:
    by_run.save(tmp_path)
    (tmp_path / "keys.csv").write_bytes(content)
    described = json.loads((tmp_path / "split.json").read_text())
    described["keys_sha256"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "split.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=rf"keys\.csv.*{message}"):
        load_split(tmp_path)


def test_other_recordings_are_refused(by_run: Split, rows: list[Row]) -> None:
    with pytest.raises(ValueError, match="was made from rows"):
        by_run.check(rows[:-1])
    with pytest.raises(ValueError, match="does not know the sentence 'Unheard of'"):
        by_run.of("Unheard of")


def test_leaving_a_reader_out_gives_new_sentences_and_new_readers_apart(by_run: Split, rows: list[Row]) -> None:
    cells = by_run.leave_out(rows, "reader3")
    assert {rows[i].subject for name in ("known_new", "new_new") for i in cells[name]} <= {"reader3"}
    assert "reader3" not in {rows[i].subject for name in ("train", "valid", "new_known") for i in cells[name]}
    assert {by_run.of(rows[i].text) for name in ("train", "known_new") for i in cells[name]} == {"train"}
    assert {by_run.of(rows[i].text) for i in cells["new_known"]} == {"test"}
    tested = sum(len(cells[name]) for name in ("new_known", "new_new"))
    assert tested == by_run.counts["test"]
    with pytest.raises(ValueError, match="nobody called 'reader9'"):
        by_run.leave_out(rows, "reader9")


def test_a_recorded_sentence_becomes_a_row() -> None:
    sentence = Sentence(recording=Recording("YAC", 2, "NR"), index=7, content="A.")
    assert row_of(sentence) == Row("YAC", "NR2", 7, "A.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "row"}, "run or key"),
        ({"test": 0.0}, "positive"),
        ({"valid": 0.95}, "below 1"),
        ({"margin": -1}, "25"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitConfig(**change)


def test_readings_too_short_for_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        SplitConfig().build([Row("a", "NR1", i, f"s {i}") for i in range(40)])
    with pytest.raises(ValueError, match="no rows"):
        SplitConfig().build([])


def test_a_leaking_split_is_an_error() -> None:
    from dataclasses import replace

    split = SplitConfig(unit="key").build([Row("a", "NR1", i, f"s {i}") for i in range(40)])
    key = next(key for key, fate in split.keys.items() if fate.split == "test")
    known = next(fate for fate in split.keys.values() if fate.split == "train")
    with pytest.raises(ValueError, match="train and test share 1 "):
        leakage.check_split(replace(split, keys={**split.keys, key: replace(split.keys[key], text=known.text)}))


def test_overlap_counts_entries_unique_sentences_and_weights() -> None:
    found = leakage.overlap("x", ["A b.", "c"], ["a, B", "A b", "d"], [1, 2, 5])
    assert (found.n_shared, found.n_shared_unique, found.n_test_unique, found.share) == (2, 1, 2, 3 / 8)


def test_pretraining_text_loses_sentences_however_they_are_tokenised_cut_or_joined() -> None:
    known = [
        "It doesn't (really) matter whether the actors, who are good, were ever on a horse.",
        "Dull, lifeless film!",
    ]
    leaking = [
        "It does n't -LRB- really -RRB- matter whether the actors , who are good , were ever on a horse .",
        "whether the actors , who are good , were ever on a horse .",
        "a dull , lifeless film ! and more",
    ]
    fit = ["It doesn't matter whether the actors are good.", "A lively film .", ""]
    kept, removed = leakage.without_zuco([*leaking, *fit], known)
    assert (kept, removed) == (fit, leaking)


@pytest.fixture(scope="module", params=["first", "last"])
def materials(request: pytest.FixtureRequest) -> tuple[str, dict[str, tuple[str, ...]]]:
    return request.param, read_materials(data_folder("zuco"), request.param)


def test_every_reading_has_as_many_sentences_as_were_recorded(materials) -> None:
    assert [len(materials[1][task]) for task in TASK_LISTS] == [400, 300, 407, 349, 390]
    assert len({normalise(text) for text in materials[1]["TSR1"]}) == 386


def test_readings_share_the_published_numbers_of_sentences(materials) -> None:
    practice, found = materials
    expected = {"NR1 TSR1": (47, 47), "NR1 NR2": (50, 47), "NR1 TSR2": (48, 51), "TSR1 NR2": (24, 24),
                "TSR1 TSR2": (82, 80), "NR2 TSR2": (59, 59)}  # fmt: skip
    for pair, n_shared in leakage.shared_sentences(found).items():
        assert n_shared == expected.get(" ".join(pair), (0, 0))[practice == "last"], pair


@pytest.mark.parametrize(
    ("tasks", "n_test", "verbatim", "percent"),
    [
        ("SR1 NR1 NR2", 106, (4, 5), (4.44, 5.65)),
        ("SR1 NR1 TSR1", 112, (6, 6), (5.36, 5.36)),
        ("SR1 NR1 NR2 TSR1", 148, (15, 16), (11.45, 12.35)),
        ("SR1 NR1 NR2 TSR1 TSR2", 187, (62, 60), (39.20, 37.86)),
    ],
)
def test_the_split_by_index_leaks_as_measured(materials, tasks, n_test, verbatim, percent) -> None:
    practice, found = materials[0] == "last", materials[1]
    leak = leakage.published_index_split({task: found[task] for task in tasks.split()})
    assert (leak.n_test, leak.n_shared) == (n_test, verbatim[practice])
    assert round(100 * leak.share, 2) == percent[practice]


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [("SR1 NR1 NR2", (10_710, 1_407, 104, 3, 47)), ("SR1 NR1 NR2 TSR2", (15_094, 2_012, 137, 22, 363))],
)
def test_the_published_rows_leak_as_measured(tasks: str, expected: tuple[int, ...]) -> None:
    leak = leakage.published_rows(data_folder("zuco") / "cetmae_metadata" / "TSR_metadata.csv", tasks.split())
    assert (leak.n_train, leak.n_test, leak.n_test_unique, leak.n_shared_unique, leak.n_shared) == expected


@pytest.mark.parametrize("tasks", [("SR1", "NR1", "NR2"), pytest.param(TASK_LISTS, marks=pytest.mark.slow)])
def test_a_split_of_the_real_sentences_keeps_its_promises(tasks: tuple[str, ...]) -> None:
    found = read_materials(data_folder("zuco"))
    split = SplitConfig().build(rows_of_materials({task: found[task] for task in tasks}, leakage.READERS))
    assert all(pair.n_shared == 0 for pair in leakage.check_split(split))
    kept = sum(split.counts[name] for name in SPLITS)
    assert [split.counts[name] / kept for name in SPLITS] == pytest.approx([0.8, 0.1, 0.1], abs=0.04)


def test_no_film_sentence_is_left_in_pretraining_text() -> None:
    films = read_materials(data_folder("zuco"))["SR1"]
    for name in ("sst_sentences.txt", "rt_polarity.txt"):
        lines = (data_folder("text") / name).read_text("utf-8", errors="replace").split("\n")
        kept, removed = leakage.without_zuco(lines, films)
        everything = "\n".join(normalise(line).replace(" ", "") for line in kept)
        assert not [text for text in films if normalise(text).replace(" ", "") in everything]
        assert 390 <= len(removed) <= 450, name


def test_missing_and_cut_materials_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sentiment_labels_task1\.csv is missing; .*put the task materials"):
        read_materials(tmp_path)
    source = data_folder("zuco") / "zuco1_task_materials" / "sentiment_labels_task1.csv"
    path = tmp_path / "zuco1_task_materials" / source.name
    path.parent.mkdir()
    path.write_bytes(source.read_bytes()[:5000])
    with pytest.raises(ValueError, match="where 400 were recorded"):
        read_materials(tmp_path)


def test_the_command_prints_the_leak_and_writes_json(tmp_path: Path, capsys, monkeypatch) -> None:
    from spikeloom.pipelines.commands import data
    from spikeloom.pipelines.config.data import DataConfig
    from spikeloom.pipelines.datasets import leakage as verb

    root = tmp_path / "zuco"
    monkeypatch.setattr(verb, "TASKS", verb.TASKS[-1:])  # every other one takes a second
    os.symlink(data_folder("zuco"), root)  # without text beside it: that table is left out
    data.run(DataConfig(what="leakage", root=str(root), out=str(tmp_path / "leak.json")))
    assert "39.20 %" in capsys.readouterr().out
    written = json.loads((tmp_path / "leak.json").read_text())
    assert [row["in train"] for row in written["Split by sentence"]] == [0] * 2
    assert "Text for pretraining" not in written
    with pytest.raises(ValueError, match=r"use out=FILE\.html or out=FILE\.json"):
        data.run(DataConfig(what="leakage", root=str(root), out="leak.csv"))
