"""Do decoded sentences depend on the EEG? Two decoders with the same words: one reads, one guesses.

Scores of words alone do not tell them apart; the test against the same outputs in other order does.
"""

import random
from pathlib import Path

import spikeloom

rng = random.Random(0)
text = "the a film house story actor quiet long strange good bad very is was has never always and but with"
words = text.split()
truth = [" ".join(rng.choices(words, k=9)) for _ in range(60)]
reads = [" ".join(w if rng.random() < 0.4 else rng.choice(words) for w in s.split()) for s in truth]
guesses = rng.sample(reads, len(reads))  # the same sentences, for the wrong trials

for name, outputs in (("reads", reads), ("guesses", guesses)):
    lines = (f"Predicted: {said}\nTrue: {true}" for said, true in zip(outputs, truth, strict=True))
    Path(f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    found = spikeloom.score(f"{name}.txt", n_permutations=199)
    print(f"{name}: BLEU-1 {found['bleu_word'][0]:.1f} %, p {found['p_permutation']:.3f}\n  {found['verdict']}")
