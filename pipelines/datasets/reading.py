"""`spikeloom data check dataset=bids_reading root=FOLDER`: read every recording of a reading corpus in BIDS once, and
print how it comes onto the net of the features, how many sentences it holds, and how many give a sample.
`spikeloom data cache dataset=bids_reading root=FOLDER out=FOLDER/.spikeloom`: its sentences, where trainings read them.
A page of one of its recordings: `spikeloom data describe dataset=eeg root=FILE`."""

import sys
from dataclasses import replace

from spikeloom.bci.raw.bids_corpus import BIDSReadingConfig
from spikeloom.bci.raw.sentences import sentences_of
from spikeloom.bci.zuco.quality import quality_table
from spikeloom.bci.zuco.samples import DROP_REASONS, SamplesConfig
from spikeloom.pipelines.config.data import DataConfig
from spikeloom.pipelines.datasets.eeg import closing
from spikeloom.pipelines.datasets.zuco_files import out_folder, print_cached
from spikeloom.pipelines.training.runtime import watch


def check(config: DataConfig, source: BIDSReadingConfig) -> None:
    """Exits with 1 after one line for each problem."""
    print(f"{config.dataset} in {source.root}")
    corpus, samples, problems = source.build(), SamplesConfig().build(), []
    for recording in watch(corpus.recordings, "reading recordings"):
        sentences = (sentence for record in corpus.records_of(recording) for sentence in sentences_of(record))
        try:
            rows = quality_table(sentences, samples)
        except (ValueError, OSError) as error:
            problems.append(" ".join(str(error).split()))
            continue
        for path in corpus.paths[recording]:
            print(f"  {path.name}: {corpus.how[path]}")
        for row in rows:
            dropped = [
                f"{name.replace('_', ' ')} {row[key]}" for name in DROP_REASONS if row[key := f"drop_reason_{name}"]
            ]
            print(
                f"    {row['n_rows']} sentences of {row['n_words']} words, {row['n_fixations']} fixations; "
                f"{row['n_kept']} give a sample" + (f" (dropped: {', '.join(dropped)})" if dropped else "")
            )
    for problem in problems:
        print(f"problem: {problem}")
    if problems:
        sys.exit(1)
    print(closing({path.name: n for path, n in corpus.lost.items()}))


def cache(config: DataConfig, source: BIDSReadingConfig) -> None:
    """Compute the sentences of every recording that has no cache, and compare the time with reading them again."""
    out = out_folder(config)
    corpus = replace(source, cache=str(out)).build()
    named = [(f"sub-{r.subject}_task-{r.task}", r) for r in corpus.recordings]
    print_cached(named, corpus.keep, corpus.sentences, out, config.processes)


def describe(config: DataConfig, source: BIDSReadingConfig) -> None:
    """Raises ValueError: a page is of one recording."""
    raise ValueError(
        f"data describe shows one recording, not the corpus of dataset={config.dataset} in {source.root}; use "
        "dataset=eeg root=FILE"
    )
