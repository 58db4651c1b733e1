"""Any layout of decoded text gives its rows; what was cut, joined or left out is counted; other scripts keep words."""

import json
from pathlib import Path

import pytest

from spikeloom.bci.evaluation.dumps import read_dump, read_lines
from spikeloom.bci.evaluation.metrics import definitions, measure
from spikeloom.bci.evaluation.tokens import key_of, n_words, spaced

ROWS = [("he was a boy", "She was a girl."), ("it is", "It is good, really.")]


def written(path: Path) -> Path:
    """ROWS in the layout that the suffix or the stem names."""
    if path.stem == "eegtotext":
        text = "".join(
            f"target string: {true}</s><pad>\npredicted string with tf: x{said}\npredicted string: <s>{said}</s>\n"
            "################################################\n\n\n"
            for said, true in ROWS
        )
        text += "corpus BLEU-1 score: 0.4\n"
    elif path.stem == "neuspeech":
        text = "".join(f"start####\nPredicted: {said}\nTrue: {true}\nend======\n\n" for said, true in ROWS)
    elif path.suffix in (".csv", ".tsv"):
        sep = "," if path.suffix == ".csv" else "\t"
        text = f"subject{sep}Prediction{sep}Target\n" + "".join(f'S1{sep}{s}{sep}"{t}"\n' for s, t in ROWS)
    elif path.suffix == ".jsonl":
        text = "".join(json.dumps({"output": s, "reference": t, "subject": "S1", "seed": 3}) + "\n" for s, t in ROWS)
    elif path.stem == "columns":
        text = json.dumps({"preds": [s for s, _ in ROWS], "labels": [t for _, t in ROWS], "bleu": 0.1})
    else:
        text = json.dumps([{"hypothesis": s, "ground_truth": t} for s, t in ROWS])
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name", ["eegtotext.txt", "neuspeech.txt", "a.csv", "a.tsv", "a.jsonl", "columns.json", "list.json"]
)
def test_every_layout_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    found = read_dump(written(tmp_path / name))
    assert list(zip(found.decodings.outputs, found.decodings.references, strict=True)) == ROWS and not found.forced
    if name == "eegtotext.txt":
        assert found.layout == "EEG-To-Text"
        assert "8 special tokens cut" in found.notes and "1 lines outside of pairs ignored" in found.notes
        forced = read_dump(tmp_path / name, "predicted string with tf")
        assert forced.forced and forced.decodings.outputs[0] == "xhe was a boy"
    if name == "a.jsonl":
        assert found.decodings.subjects == ("S1", "S1") and found.decodings.seeds == (3, 3)


PAIRS = [("he was a boy", "She was a girl."), ("it is", "It is good: really.")]


@pytest.mark.parametrize(
    "pair",
    [
        "{k}. Predicted: {said}\n{k}. True: {true}\n", "[{k}] Prediction: {said}\n[{k}] Label: {true}\n",
        "REF: {true}\nHYP: {said}\n", "Ground Truth : {true}\nDecoded : {said}\n",
        "Predicted:\t{said}\nTrue:\t{true}\n",
        "Predicted: '{said}'\nTrue: '{true}'\n", "Predicted: ['{said}']\nTrue: ['{true}']\n",
        "Predicted: <s>{said}</s><pad>\r\nTrue: {true}\r\n", "Predicted: {said}\nTrue: {true}\nBLEU: 0.1\n",
        "target tokens: ['a']\ntarget string: {true}\npredicted tokens: ['b']\npredicted string: {said}\n####\n",
    ],
)  # fmt: skip
def test_pairs_have_other_names_numbers_quotes_and_fields(pair: str, tmp_path: Path) -> None:
    text = "".join(pair.format(k=k, said=said, true=true) for k, (said, true) in enumerate(PAIRS))
    (tmp_path / "a.txt").write_bytes(text.encode())
    found = read_dump(tmp_path / "a.txt").decodings
    assert list(zip(found.outputs, found.references, strict=True)) == PAIRS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"pred_text": "a b", "gt": "c d"}\n'), ("a.json", 2 * '{"y_pred": "a b", "y_true": "c d"}\n'),
        ("a.json", '{"results": [{"generated_text": "a b", "target_sentence": "c d"}], "bleu": 1}'),
        ("a.txt", "hypothesis\treference\na b\tc d\n"), ("a.csv", ",Candidate,Ground truth\r\n0,a b,c d\r\n"),
    ],
)  # fmt: skip
def test_columns_have_other_names(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    found = read_dump(tmp_path / name).decodings
    assert (set(found.outputs), set(found.references)) == ({"a b"}, {"c d"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("wandb.json", json.dumps({"columns": ["step", "pred", "ref"], "data": [[1, s, t] for s, t in ROWS]}).encode()),
        ("generate.txt", "".join(
            f"S-{k}\teeg\nT-{k}\t{t}\nH-{k}\t-0.7\t{s.replace(' ', ' ▁')}\nD-{k}\t-0.7\t{s}\nP-{k}\t-1 -2\n"
            for k, (s, t) in enumerate(ROWS)
        ).encode()),
        ("excel.txt", ("prediction\treference\r\n" + "".join(f"{s}\t{t}\r\n" for s, t in ROWS)).encode("utf-16")),
        ("excel.csv", ("\ufeffvorhersage;prediction;reference\n" + "".join(f"x;{s};{t}\n" for s, t in ROWS)).encode()),
    ],
)  # fmt: skip
def test_tables_of_loggers_spreadsheets_and_fairseq_are_read_as_they_are(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    found = read_dump(tmp_path / name).decodings
    assert list(zip(found.outputs, found.references, strict=True)) == ROWS


def test_outputs_and_references_may_lie_in_two_files(tmp_path: Path) -> None:
    said, true = tmp_path / "hyp.txt", tmp_path / "ref.txt"
    said.write_text("<s>he was a boy</s>\r\n\r\n")
    true.write_text("She was a girl.\nПривет, мир!\n")
    found = read_lines(said, true).decodings
    assert found.outputs == ("he was a boy", "") and found.references == ("She was a girl.", "Привет, мир!")
    true.write_text("one\n\n")
    with pytest.raises(ValueError, match=r"hyp\.txt, line 2 is an empty `reference:`"):
        read_lines(said, true)
    true.write_text("one\n")
    with pytest.raises(ValueError, match=r"hyp\.txt has 2 lines, .*ref\.txt has 1"):
        read_lines(said, true)
    with pytest.raises(FileNotFoundError, match="one text a line"):
        read_lines(said, tmp_path / "no.txt")


def test_columns_of_no_usual_name_are_given_and_a_choice_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("tea,milk,pred,output\na,b,c,d\n")
    with pytest.raises(ValueError, match="reference_column="):
        read_dump(tmp_path / "a.csv")
    found = read_dump(tmp_path / "a.csv", reference_column="milk")
    assert found.decodings.outputs == ("c",) and found.notes == (
        "outputs are those of 'pred', not output (column=NAME)",
    )
    assert read_dump(tmp_path / "a.csv", "tea", "milk").decodings.outputs == ("a",)
    with pytest.raises(ValueError, match="sugar; give column="):
        read_dump(tmp_path / "a.csv", "sugar", "milk")


def test_texts_over_several_lines_are_joined_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Predicted: one\ntwo\n\nthree\nTrue: four\n---------\nPredicted: x\nTrue: y\n")
    found = read_dump(tmp_path / "a.txt")
    assert found.decodings.outputs == ("one two three", "x") and found.notes == ("1 texts over several lines joined",)
    (tmp_path / "a.csv").write_text('predicted,true\n"one\ntwo",three\n')
    assert read_dump(tmp_path / "a.csv").decodings.outputs == ("one two",)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "predicted,true\na,b,c\n", r"a\.csv, line 2: 3 cells, the header has 2"),
        ("a.csv", "pred,pred,true\na,b,c\n", r"a\.csv.*each name once"),
        ("a.csv", "predicted,score\na,b\n", r"a\.csv has no column of references.*it has predicted, score"),
        ("a.jsonl", '{"pred": "a", "true": "b"}\nnot json\n', r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", "[1]\n", r"a\.jsonl, line 1 is no object"),
        ("a.json", '{"pred": ["a"], "true": ["b", "c"]}', r"a\.json: its lists differ in length"),
        ("a.json", "7", r"a\.json holds no list"),
        ("a.jsonl", '{"pred": "a", "true": ""}\n', r"a\.jsonl, line 1 is an empty `true:`"),
        ("a.jsonl", '{"pred": "a", "true": "b", "subject": "S", "seed": "x"}\n', "a seed is no whole number"),
        ("a.txt", "target string: a\n####\ntarget string: b\n", r"a\.txt:3 is a second `target string:`"),
    ],
)
def test_what_is_no_row_is_named_with_its_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_dump(tmp_path / name)


def test_other_scripts_keep_their_words() -> None:
    assert key_of("It's a -- GOOD film.") == "it s a good film" and key_of("Bôcher") == "b cher"
    assert key_of("Привет, мир!") == "привет мир" and key_of("Привет") != key_of("Пока")
    assert n_words("我喜欢你。") == 5 and key_of("我喜欢你。") == "我 喜 欢 你"
    assert spaced("plain text") == "plain text"
    found = measure(["我喜欢他。"], ["我喜欢你。"])
    assert found.bleu_word[0] == pytest.approx(80.0) and found.wer == pytest.approx(20.0)
    assert "each character of scripts without spaces" in definitions(["我喜欢你。"])["bleu_word"]
