"""Decoded text, sentences, tokenizers and encoders."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.bci.data.tokenizer import load_tokenizer, train_tokenizer
from spikeloom.bci.evaluation.dumps import read_dump
from spikeloom.bci.evaluation.embeddings import _static, load_encoder, vector_width
from spikeloom.bci.evaluation.metrics import bleu_bpe
from spikeloom.bci.models.bart import pretrained_bart
from spikeloom.bci.synthetic.zuco import read_lines
from spikeloom.pipelines.datasets.leakage import _corpus
from spikeloom.pipelines.eeg.scoring import train_lines
from tests.fuzz.parser import OneFile, Parser, files, of_one_file

LINES = ("a quiet house on the hill.", "he reads the second book.", "the film is long.")


def dumps(folder: Path) -> None:
    rows = [{"predicted": a, "true": b, "subject": "Z01", "seed": 0} for a, b in zip(LINES, LINES[::-1], strict=True)]
    table = "predicted,true,subject,seed\n" + "".join(f'"{r["predicted"]}","{r["true"]}",Z01,0\n' for r in rows)
    pairs = "".join(f"Predicted: {a}\nTrue: {b}\n\n" for a, b in zip(LINES, LINES[::-1], strict=True))
    older = "".join(
        f"target string: {b}\npredicted string: {a}\npredicted string with tf: {a}\n###\n"
        for a, b in zip(LINES, LINES, strict=True)
    )
    logged = json.dumps({"columns": ["pred", "ref"], "data": [list(pair) for pair in zip(LINES, LINES, strict=True)]})
    numbered = "".join(f"T-{k}\t{text}\nH-{k}\t-0.5\t{text}\n" for k, text in enumerate(LINES))
    for i, (name, text) in enumerate((
        ("c.json", logged), ("c.txt", numbered), ("a.csv", table), ("a.tsv", table.replace(",", "\t")),
        ("a.json", json.dumps(rows)),
        ("a.jsonl", "\n".join(map(json.dumps, rows))), ("a.txt", pairs), ("b.txt", older),
    )):  # fmt: skip
        (folder / str(i)).mkdir()
        (folder / str(i) / name).write_text(text, "utf-8")


def is_dump(result: Any) -> None:
    decodings = result.decodings
    assert decodings.outputs and len(decodings.outputs) == len(decodings.references)
    assert all(isinstance(text, str) and text.strip() for text in decodings.references)


def tokenizers(folder: Path) -> None:
    train_tokenizer(LINES, 300).save(folder / "0")


def read_tokenizer(folder: Path) -> Any:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(["he reads a book", "x"]).ids
    bleu_bpe(LINES, LINES[::-1], folder)
    return tokenizer.decode(ids)


def bert_folders(folder: Path) -> None:
    from spikeloom.bci.models.bart import bart_classes

    classes = bart_classes()
    train_tokenizer(LINES, 300).save(folder / "0")
    config = classes.BertConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=40,
    )  # fmt: skip
    classes.BertModel(config).save_pretrained(folder / "0")


def static_vectors(folder: Path) -> None:
    from safetensors.numpy import save_file

    (folder / "0" / "weights").mkdir(parents=True)
    (folder / "0" / "tokenizers").mkdir()
    tokenizer = train_tokenizer(LINES, 300)
    tokenizer.bpe.save(str(folder / "0" / "tokenizers" / "l2_tokenizer_config.json"))
    table = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 4)).astype(np.float16)
    save_file({"embedding.weight": table}, folder / "0" / "weights" / "l2_256.safetensors")


def bart_folders(folder: Path) -> None:
    from spikeloom.bci.models.bart import bart_classes

    classes = bart_classes()
    config = classes.BartConfig(
        vocab_size=60, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=20,
    )  # fmt: skip
    classes.BartForConditionalGeneration(config).save_pretrained(folder / "0")


def read_bart(folder: Path) -> Any:
    return pretrained_bart(str(folder), 60)


def embed(folder: Path) -> np.ndarray:
    encoder = load_encoder(str(folder))
    assert encoder.width == vector_width(str(folder))
    return encoder.encode(LINES)


def are_vectors(result: np.ndarray) -> None:
    assert result.shape[0] == 3 and np.isfinite(result).all()


DUMPS = "bci/evaluation/dumps.py"
SENTENCES = files("a.txt", lambda: ["\n".join(LINES).encode()])
ONE_FILE: tuple[OneFile, ...] = (
    ("decoding_dumps", dumps, read_dump, is_dump, (f"{DUMPS}:_text", f"{DUMPS}:_table", f"{DUMPS}:_json")),
    ("sentences_txt", SENTENCES, lambda path: (read_lines(path), train_lines(path)), None,
     ("bci/synthetic/zuco.py:read_lines", "pipelines/eeg/scoring.py:train_lines")),
    ("text_corpora", SENTENCES, lambda path: _corpus(path, [*LINES]), None,
     ("pipelines/datasets/leakage.py:_corpus",)),
)  # fmt: skip
PARSERS = [
    *of_one_file(ONE_FILE),
    Parser(
        name="tokenizer",
        write=tokenizers,
        read=read_tokenizer,
        covers=("bci/data/tokenizer.py:load_tokenizer", "bci/evaluation/metrics.py:bleu_bpe"),
    ),
    Parser(
        name="text_encoder",
        write=bert_folders,
        read=embed,
        promise=are_vectors,
        covers=(
            "bci/data/tokenizer.py:read_bpe",
            "bci/evaluation/embeddings.py:_bert",
            "bci/evaluation/embeddings.py:vector_width",
        ),
    ),
    Parser(
        name="static_vectors",
        write=static_vectors,
        promise=are_vectors,
        covers=("bci/evaluation/embeddings.py:_static",),
        read=lambda f: _static("wordllama", f / "weights").encode(LINES),
    ),
    Parser(name="bart_folder", write=bart_folders, read=read_bart, covers=("bci/models/bart.py:pretrained_bart",)),
]
