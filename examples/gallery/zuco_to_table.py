"""ZuCo's result files as a table of words: what was fixated, for how long, with which EEG.

Without the recordings, synthetic files in the published layout stand in; `root` is all that changes.
"""

from pathlib import Path

from spikeloom.bci.zuco.reader import find_files, read_sentences
from spikeloom.pipelines.cli import main

root = Path("zuco")
main(["data", "synthesize", f"out={root}", "tasks=[SR1]", "subjects=1", "sentences=3"])

rows = []
for file in find_files(root):
    for sentence in read_sentences(file):
        for word in sentence.words:
            if word.fixated:
                theta_uv = float(word.eeg["TRT"][:105].mean())  # total reading time, first band, mean of 105 channels
                rows.append((file.stem, word.content, word.n_fixations, word.durations_ms["TRT"], theta_uv))

print(f"{'file':16s} {'word':14s} {'fixations':>9s} {'ms':>6s} {'theta µV':>9s}")
for name, written, fixations, ms, uv in rows[:8]:
    print(f"{name:16s} {written:14s} {fixations:9.0f} {ms:6.0f} {uv:9.3f}")
print(f"{len(rows)} fixated words")
