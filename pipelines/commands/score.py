"""`spikeloom score`: decoded text of any decoder, measured and tested for use of the EEG; writes JSON."""

import logging
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import write_json
from spikeloom.pipelines.config.score import ScoreConfig
from spikeloom.pipelines.eeg.scoring import score
from spikeloom.pipelines.training.runtime import set_up

log = logging.getLogger("spikeloom")


def run(config: ScoreConfig) -> None:
    set_up()
    log.info("score: %s, %d permutations, seed %d", config.predictions, config.n_permutations, config.seed)
    found = score(config)
    if config.out is not None:
        write_json(Path(config.out), found)
    print_scores(found)
    if config.out is not None:
        log.info("-> %s", config.out)


def print_scores(found: dict[str, Any]) -> None:
    """The figures in a few lines, the verdict first."""

    def percent(values: list[float]) -> str:
        return " / ".join(f"{value:.2f}" for value in values)

    print(found["verdict"])
    for remark in found["remarks"]:
        print(f"  note: {remark}")
    readers = f", {found['readers']} readers, {found['seeds']} seeds" if found["readers"] else ", readers not known"
    print(f"  {found['rows']:,} rows ({found['layout']}), {found['sentences']:,} sentences{readers}")
    for note in found["notes"]:
        print(f"    {note}")
    print(f"  BLEU-1..4, words        {percent(found['bleu_word'])}")
    print(f"  constant sentence       {percent(found['constant_sentence_bleu_word'])}")
    if found["bleu_bpe"] is None:
        print("  BLEU-1..4, BPE          not counted: no tokenizer there; give tokenizer=FOLDER with a tokenizer.json")
    else:
        print(f"  BLEU-1..4, BPE          {percent(found['bleu_bpe'])}   (diagnostic: inflated)")
    print(f"  ROUGE-1 F, WER, CER     {found['rouge1_f']:.2f}, {found['wer']:.2f}, {found['cer']:.2f}")
    print(f"  distinct outputs        {found['distinct_outputs']:,} of {found['rows']:,} rows")
    test = found["permutation"]
    print(f"  p, sentences permuted   {found['p_permutation']:.3f}   ({test['n_sentences']} sentences)")
    for file, p in found["p_differences"].items():
        print(f"  p, EEG minus control    {p:.3f}   ({file})")
    for level, values in found["levels"].items():
        shown = (
            f"top-1/5/10 {percent([100 * v for v in values['top'].values()])} of {values['gallery']:.0f}, "
            f"chance {percent([100 * v for v in values['chance_top'].values()])}"
            if level == "retrieval"
            else f"similarity {values['own']:.3f}, all sentences {values['chance']:.3f}"
        )
        beyond = "" if values["p_difference"] is None else f", minus control {values['p_difference']:.3f}"
        print(f"  p, {level:20s} {values['p']:.3f}{beyond}   ({shown})")
    if "semantic" not in found["levels"]:
        print("  semantic level          not counted: give encoder=FOLDER, or encoder=wordllama with 'spikeloom[text]'")
    print(
        "  words: " + found["definitions"]["bleu_word"].split("tokens: ")[1].split(";")[0] + "; more in out=FILE.json"
    )
