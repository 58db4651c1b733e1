"""Files of decoded text in the layouts that public decoders write, as rows of `Decodings`.

    Predicted: … / True: …                          NeuSpeech and others; either order, separators between the pairs
    target string: … / predicted string: …          EEG-To-Text; also `predicted string with tf:` (teacher forcing)
    Ref: … / Hyp: …   3. Prediction: … / Label: …   other names of the two, numbered or not
    T-0 … / H-0 …                                   fairseq, by number; D-0, where it is there, before H-0
    .csv .tsv                                       a header with a column of outputs and one of references
    .json .jsonl                                    objects, one a row, an object of lists, or columns and data
    two files                                       outputs and references, a line each

Special tokens of tokenizers are cut, texts broken over lines are joined, and both are counted in `notes`. Subject, task
and seed are taken where a table has them. What this module does not do: guess a reference that is not there.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import first_few
from spikeloom.bci.evaluation.rows import UNKNOWN, Decodings, one_row_per_trial
from spikeloom.bci.evaluation.tokens import key_of

OUTPUTS = (
    "predicted", "prediction", "predictions", "pred", "preds", "output", "outputs", "decoded", "generated",
    "generation", "hypothesis", "hypotheses", "hyp", "hyps", "candidate", "candidates", "model_output",
    "response", "y_pred",
)  # fmt: skip
REFERENCES = (
    "target", "targets", "true", "reference", "references", "ref", "refs", "label", "labels", "gold", "ground_truth",
    "groundtruth", "gt", "truth", "actual", "original", "expected", "y_true", "sentence",
)  # fmt: skip
FORCED = ("predicted_string_with_tf", "predicted_tf", "prediction_tf", "teacher_forced")
OTHERS = {
    "subject": ("subject", "subjects", "participant", "subj", "reader"), "task": ("task", "tasks"),
    "seed": ("seed", "seeds"),
}  # fmt: skip
SPECIAL = re.compile(
    r"</?s>|<pad>|<unk>|<mask>|\[(?:CLS|SEP|PAD|UNK|MASK)\]|<\|[^|>\s]{1,40}\|>|<eos>|<bos>", re.IGNORECASE
)
SEPARATOR = re.compile(r"(start|end)?\s*([#*=\-_~])\2{3,}.*", re.IGNORECASE)
LARGEST_BYTES = 1 << 28
MARKERS = {
    "predicted string": "output", "predicted": "output", "target string": "reference", "true": "reference",
    "predicted string with tf": "forced",
}  # fmt: skip
_FIELD = re.compile(r"\s*(?:[\[(#]?\d+[\])]?[.:)]?\s+)?([A-Za-z][A-Za-z_ -]{0,30}?)\s*:\s?(.*)", re.DOTALL)
_TOKENS = re.compile(r"\s*(target|predicted|true) (tokens?|ids)\b.{0,20}:", re.IGNORECASE)  # other lines of a pair
_QUOTED = re.compile(r"(?:\[\s*)?(['\"`])(.*)\1(?:\s*\])?", re.DOTALL)
_MARKER = re.compile(rf"({'|'.join(sorted(MARKERS, key=len, reverse=True))}): ?(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Dump:
    """layout: how the file is written. forced: the outputs are those of a teacher-forced column. notes: what was cut,
    joined or ignored, in words."""

    decodings: Decodings
    layout: str
    forced: bool
    notes: tuple[str, ...]


def read_lines(path: Path, references: Path) -> Dump:
    """Outputs of one file and references of another, a line each. Raises ValueError where they differ in number."""
    columns = {}
    for name, file in (("output", Path(path)), ("reference", Path(references))):
        text = _text(file, "give a file with one text a line")
        columns[name] = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    said, true = columns["output"], columns["reference"]
    if len(said) != len(true):
        raise ValueError(
            f"{path} has {len(said):,} lines, {references} has {len(true):,}; give files of the same trials"
        )
    rows: list[Row] = [
        (f"line {number}", {"output": a, "reference": b})
        for number, (a, b) in enumerate(zip(said, true, strict=True), 1)
    ]
    return _dump(Path(path), rows, "lines of two files", [], None, None)


def role_of(name: str) -> str:
    """A name of a column or marker without case, spelling of spaces, and what it says of its type:
    `Target String` -> target, `pred_text` -> pred, `predicted string with tf` as it is but for the spaces."""
    base = re.sub(r"[\s-]+", "_", name.strip().lower())
    short = re.sub(r"^texts?_|_(texts?|strings?|strs?|sentences?)$", "", base)
    return short if short in OUTPUTS or short in REFERENCES else base


def read_dump(path: Path, column: str | None = None, reference_column: str | None = None) -> Dump:
    """The rows of a file. column: of the outputs, where a file has several (`predicted string with tf`);
    reference_column: of the references, where their name is not known here.

    Raises ValueError naming file, line and remedy where a row has no reference, a pair is torn or a column is missing;
    FileNotFoundError when there is no file.
    """
    path = Path(path)
    text = _text(path, "give one with lines `Predicted: …` and `True: …`, or a .csv, .tsv, .json or .jsonl")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        rows, layout, notes = _table(path, text, suffix), suffix[1:], list[str]()
    elif suffix in (".json", ".jsonl", ".ndjson"):
        rows, layout, notes = _json(path, text), "jsonl" if suffix != ".json" else "json", list[str]()
    else:
        rows, layout, notes = _lines(path, text)
    return _dump(path, rows, layout, notes, column, reference_column)


Row = tuple[str, dict[str, Any]]  # where, in words; values by name


def _text(path: Path, remedy: str) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; {remedy}")
    if path.stat().st_size > LARGEST_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; give a file of decoded text below 256 MB")
    content = path.read_bytes()
    coding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(coding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def _dump(
    path: Path, rows: list[Row], layout: str, notes: list[str], column: str | None, reference_column: str | None
) -> Dump:
    if not rows:
        raise ValueError(f"{path} holds no row; give a file of outputs and references")
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    lower = {name.strip().lower(): name for name in names}
    roles: dict[str, str] = {}
    for name in names:
        roles.setdefault(role_of(name), name)
    outputs = [roles[role] for role in (*OUTPUTS, *FORCED) if role in roles]
    references = [roles[role] for role in REFERENCES if role in roles]
    output = next(iter(outputs), None) if column is None else lower.get(column.strip().lower())
    reference = (
        next(iter(references), None) if reference_column is None else lower.get(reference_column.strip().lower())
    )
    if output is None or reference is None:
        lacking = (
            f"{reference_column or 'references (true, target, reference, …)'}; give reference_column=NAME"
            if reference is None
            else f"{column or 'outputs (predicted, prediction, output, …)'}; give column=NAME"
        )
        raise ValueError(f"{path} has no column of {lacking}: it has {', '.join(names[:12])}")
    free = [name for name in outputs if role_of(name) not in FORCED]
    if column is None and len(free) > 1:
        notes.append(f"outputs are those of {output!r}, not {first_few(free[1:])} (column=NAME)")
    others = {what: next((lower[n] for n in known if n in lower), None) for what, known in OTHERS.items()}
    columns: dict[str, list[Any]] = {name: [] for name in ("outputs", "references", *others)}
    n_special = n_broken = 0
    for where, values in rows:
        texts = []
        for name in (output, reference):
            value = values.get(name)
            if value is None and name == output:
                raise ValueError(f"{path}, {where}: there is no {name!r}; give every row its output")
            if not isinstance(value, str):
                value = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
            cut, n = SPECIAL.subn(" ", value)
            n_special += n
            cut = re.sub(r"  +", " ", cut).strip(" ") if n else value
            n_broken += "\n" in cut.strip()
            texts.append(re.sub(r"\s*\r?\n\s*", " ", cut.strip("\r\n\t")))
        if not key_of(texts[1]):
            raise ValueError(f"{path}, {where} is an empty `{reference}:`; leave trials without a text out")
        columns["outputs"].append(texts[0])
        columns["references"].append(texts[1])
        for what, taken in others.items():
            columns[what].append(None if taken is None else values.get(taken))
    for name in ("outputs", "references"):
        found = [_QUOTED.fullmatch(text.strip()) for text in columns[name] if text.strip()]
        if found and all(found):
            columns[name] = [m[2] if (m := _QUOTED.fullmatch(text.strip())) else text for text in columns[name]]
            notes.append(f"quotes around all {name} cut")
    notes += [f"{n_special} special tokens cut"] if n_special else []
    notes += [f"{n_broken} texts over several lines joined"] if n_broken else []
    forced = role_of(output) in FORCED
    if column is None and not forced and (left := [roles[role] for role in FORCED if role in roles]):
        notes.append(f"the teacher-forced column is left out (column={left[0]!r})")
    return Dump(decodings=_decodings(path, columns), layout=layout, forced=forced, notes=tuple(notes))


def _decodings(path: Path, columns: Mapping[str, Sequence[Any]]) -> Decodings:
    known = one_row_per_trial(columns["outputs"], columns["references"])
    if any(value is None for value in columns["subject"]):
        return known
    try:
        seeds = tuple(0 if value is None else int(value) for value in columns["seed"])
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: a seed is no whole number ({error}); give 0, 1, … or leave the column out") from None
    return Decodings(
        outputs=known.outputs, references=known.references, seeds=seeds,
        subjects=tuple(str(value) for value in columns["subject"]),
        tasks=tuple(UNKNOWN if value is None else str(value) for value in columns["task"]),
    )  # fmt: skip


def _table(path: Path, text: str, suffix: str) -> list[Row]:
    delimiter = "\t" if suffix == ".tsv" else max(",;\t", key=text.split("\n", 1)[0].count)
    rows: list[Row] = []
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    try:
        header = next(reader, [])
        if len(header) < 2 or len(set(header)) < len(header):
            raise ValueError(
                f"{path} has the columns {', '.join(map(repr, header)) or 'none'}; give a header with outputs and "
                "references, each name once"
            )
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, the header has {len(header)}; quote texts "
                    f"that hold {delimiter!r}"
                )
            rows.append((f"line {reader.line_num}", dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num} is no line of a table ({error}); quote its texts") from error
    return rows


def _json(path: Path, text: str) -> list[Row]:
    if path.suffix.lower() != ".json":
        found = []
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                found.append((f"line {number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number} is not JSON ({error}); give one object a line") from error
    else:
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            if text.lstrip().startswith("{") and "Extra data" in str(error):  # one object a line
                return _json(path.with_suffix(".jsonl"), text)
            raise ValueError(f"{path} is not JSON ({error}); give a list of objects") from error
        if isinstance(whole, dict):
            lists = {name: value for name, value in whole.items() if isinstance(value, list)}
            if {"columns", "data"} <= set(lists) and all(isinstance(row, list) for row in lists["data"]):
                names, data = lists["columns"], lists["data"]  # tables of wandb and pandas
                if any(len(row) != len(names) for row in data) or not all(isinstance(name, str) for name in names):
                    raise ValueError(f"{path}: its rows do not have the {len(names)} columns it names; write it again")
                lists = {name: [row[k] for row in data] for k, name in enumerate(names)}
            if not lists:
                raise ValueError(f"{path} holds no list; give a list of objects, or an object of lists")
            rows = [value for value in lists.values() if value and all(isinstance(row, dict) for row in value)]
            if len(rows) == 1:  # an object around the list of rows
                lists = {
                    name: [row.get(name) for row in rows[0]] for name in dict.fromkeys(k for r in rows[0] for k in r)
                }
            n = {len(value) for value in lists.values()}
            if len(n) != 1:
                raise ValueError(f"{path}: its lists differ in length ({sorted(n)}); give one value a row")
            whole = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
        if not isinstance(whole, list):
            raise ValueError(f"{path} holds no list; give a list of objects, or an object of lists")
        found = [(f"row {number}", row) for number, row in enumerate(whole, 1)]
    for where, row in found:
        if not isinstance(row, dict):
            raise ValueError(f"{path}, {where} is no object; give {{'predicted': …, 'true': …}}")
    return found


def _lines(path: Path, text: str) -> tuple[list[Row], str, list[str]]:
    """Pairs behind markers; a line that follows a text without a blank line belongs to it."""
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = [line.removesuffix("\r") for line in text.split("\n")]  # only \n ends a line: other breaks occur in texts
    layout = ""
    if numbered := _fairseq(lines):
        return numbered, "fairseq", []
    if not any(_MARKER.fullmatch(line) for line in lines):
        header = [role_of(cell) for cell in re.split(r"[\t,;]", lines[0])]
        if set(header) & set(OUTPUTS) and set(header) & set(REFERENCES):
            return _table(path, text, ".tsv" if "\t" in lines[0] else ".csv"), "table", []
        lines, layout = _with_markers(lines)
    fields = Counter(found[1].strip().lower() for line in lines if (found := _FIELD.fullmatch(line)))
    n_rows = max((n for name, n in fields.items() if name in MARKERS), default=0)
    others = {name for name, n in fields.items() if name not in MARKERS and n >= max(2, n_rows / 2)}
    rows: list[Row] = []
    values: dict[str, str] = {}
    place, begun, n_ignored, spelt = "", 0, 0, set[str]()

    def close(line: int) -> None:
        nonlocal values
        if not values:
            return
        kinds = {MARKERS[name] for name in values}
        if "reference" not in kinds or not kinds & {"output", "forced"}:
            name = next(iter(values))
            raise ValueError(
                f"{path}:{begun} is a `{_spelling(name)}:` without its partner; the file was cut, write it again"
            )
        rows.append((f"line {begun}", values))
        values = {}

    number = 0
    for number, line in enumerate(lines, 1):
        found = _MARKER.fullmatch(line)
        if found:
            name = found[1].lower()
            kinds = {MARKERS[n] for n in values}
            if name in values or (MARKERS[name] != "forced" and MARKERS[name] in kinds):
                whole = "reference" in kinds and kinds & {"output", "forced"}
                if not whole:
                    raise ValueError(
                        f"{path}:{number} is a second `{_spelling(name)}:` of one pair; give each `Predicted:` its own "
                        "`True:`"
                    )
                close(number)
            if not values:
                begun = number
            values[name], place = found[2], name
            spelt.add(name)
            if MARKERS[name] == "reference" and not found[2].split():
                rest = lines[number : number + 1]
                if not rest or not rest[0].strip() or _MARKER.fullmatch(rest[0]) or SEPARATOR.fullmatch(rest[0]):
                    raise ValueError(
                        f"{path}:{number} is an empty `{_spelling(name)}:`; leave trials without a text out"
                    )
        elif SEPARATOR.fullmatch(line.strip()):
            place = ""
        elif (field := _FIELD.fullmatch(line)) and (field[1].strip().lower() in others or _TOKENS.match(line)):
            place, n_ignored = "", n_ignored + 1
        elif not line.strip():
            kinds = {MARKERS[n] for n in values}
            if "reference" in kinds and kinds & {"output", "forced"}:
                place = ""
        elif place:
            values[place] += f"\n{line}"
        else:
            n_ignored += 1
    close(number)
    if not rows:
        raise ValueError(
            f"{path} holds no line `Predicted: …` or `True: …` (nor `predicted string:`, `target string:`); give a "
            "file of such pairs"
        )
    if not layout:
        layout = "EEG-To-Text" if any("string" in name for name in spelt) else "Predicted/True"
    return rows, layout, [f"{n_ignored} lines outside of pairs ignored"] if n_ignored else []


def _fairseq(lines: list[str]) -> list[Row]:
    """Rows of its generator: T-5 <tab> target, H-5 <tab> score <tab> text, D-5 the same without subwords."""
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        if taken := re.fullmatch(r"([THD])-(\d+)\t(.*)", line):
            kind, number, text = taken.groups()
            found.setdefault(number, {}).setdefault(kind, text if kind == "T" else text.split("\t", 1)[-1])
    return [
        (f"number {number}", {"output": texts.get("D", texts.get("H")), "reference": texts["T"]})
        for number, texts in found.items()
        if "T" in texts
    ]


def _with_markers(lines: list[str]) -> tuple[list[str], str]:
    """Lines whose outputs and references have the markers known here, in place of the most frequent others such as
    `Hypothesis:` and `Ref:`, numbered or not; and the names of those."""
    found = [_FIELD.fullmatch(line) for line in lines]
    named = Counter(field[1] for field in found if field)
    taken: dict[str, str] = {}
    for known, marker in ((OUTPUTS, "Predicted"), (REFERENCES, "True")):
        names = [name for name in named if role_of(name) in known]
        if not names:
            return lines, ""
        taken[max(names, key=lambda name: named[name])] = marker
    made = [
        f"{taken[field[1]]}: {field[2]}" if field and field[1] in taken else line
        for field, line in zip(found, lines, strict=True)
    ]
    return made, "/".join(taken)


def _spelling(name: str) -> str:
    return name.capitalize() if "string" not in name else name
