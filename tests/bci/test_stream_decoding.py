"""What a listening decoder is given: the recipe's tokens of clean pieces, once each, and only after their context."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spikeloom.bci.raw.features import piece_amplitudes
from spikeloom.bci.streaming.decoder import Decoded, SentenceDecoder, SlidingDecoder, Span, spans_beside, tokens_of
from spikeloom.bci.streaming.replay import FILTER_CONTEXT, Window
from spikeloom.bci.zuco.samples import SamplesConfig, standardise

RNG = np.random.default_rng(0)
EEG = 5 * RNG.standard_normal((105, 4000))
SAMPLES = SamplesConfig()


def spy(seen: list[torch.Tensor]):  # type: ignore[no-untyped-def]
    def decode(tokens: torch.Tensor, mask: torch.Tensor) -> str:
        assert tokens.shape[1:] == (1, 840) and mask.shape == tokens.shape[:2] and mask.all()
        seen.append(tokens)
        return f"text {len(seen)}"

    return decode


def test_tokens_are_the_recipe_of_clean_pieces_and_of_the_span_last() -> None:
    pieces, span = np.array([[900, 1000], [1000, 1100]]), (900, 1400)
    tokens = tokens_of(EEG, pieces, span, SAMPLES)
    expected = standardise(piece_amplitudes(EEG, np.concatenate((pieces, [span]))))
    assert tokens is not None
    np.testing.assert_allclose(tokens[:, 0].numpy(), expected, atol=1e-5)
    loud = EEG.copy()
    loud[3, 950] = 200
    cleaned = tokens_of(loud, pieces, span, SAMPLES)
    assert cleaned is not None and len(cleaned) == 2 and torch.equal(cleaned[0], cleaned[1])  # the span holds it too
    loud[3, 1050] = 200
    assert tokens_of(loud, pieces, span, SAMPLES) is None
    assert len(tokens_of(EEG, pieces, span, SamplesConfig(max_length=2))) == 2


def test_a_sliding_reader_leaves_the_filter_context_out_and_says_where_it_was() -> None:
    seen, said = [], list[Decoded]()
    reader = SlidingDecoder(spy(seen), SAMPLES, 0.25, said.append)
    for start in (0, 500):
        reader(Window(1e-6 * EEG[:, start : start + 2000], start))
    assert [len(tokens) for tokens in seen] == [10, 10]  # 1174 samples hold nine pieces of 125, and the span
    assert [heard.start_s for heard in said] == [FILTER_CONTEXT / 500, (500 + FILTER_CONTEXT) / 500]
    assert [heard.text for heard in said] == ["text 1", "text 2"] and [heard.window for heard in said] == [0, 1]
    with pytest.raises(ValueError, match="leaves no piece"):
        reader(Window(1e-6 * EEG[:, :900], 0))
    with pytest.raises(ValueError, match=r"piece_s=0\.001"):
        SlidingDecoder(spy(seen), SAMPLES, 0.001, said.append)


@pytest.mark.parametrize("chunk", [50, 333])
def test_a_sentence_is_decoded_once_from_its_own_fixations_after_its_context(chunk: int) -> None:
    fixations = np.array([[1000, 1080], [1100, 1190]])
    spans = [Span(on=2400, off=2600, fixations=np.array([[2450, 2550]])), Span(on=900, off=1300, fixations=fixations)]
    seen, said = [], list[Decoded]()
    reader = SentenceDecoder(spy(seen), SAMPLES, spans, said.append)
    for start in range(0, 4000, chunk):
        reader(Window(1e-6 * EEG[:, start : start + chunk], start))
        if start + chunk < 1300 + FILTER_CONTEXT:
            assert not said
    assert [(heard.start_s, heard.end_s, heard.n_pieces) for heard in said] == [(1.8, 2.6, 2), (4.8, 5.2, 1)]
    cut = EEG[:, 900 - FILTER_CONTEXT : 1300 + FILTER_CONTEXT]
    expected = tokens_of(cut, fixations - 900 + FILTER_CONTEXT, (FILTER_CONTEXT, FILTER_CONTEXT + 400), SAMPLES)
    np.testing.assert_allclose(seen[0].numpy(), expected.numpy(), atol=1e-4)
    assert reader.buffer.shape[1] <= chunk + FILTER_CONTEXT + 1000


def test_events_beside_a_recording_tell_sentences_and_fixations(tmp_path: Path) -> None:
    recording = tmp_path / "sub-Z01_task-SR_run-01_eeg.vhdr"
    assert spans_beside(recording) == [] and spans_beside(tmp_path / "other.edf") == []
    table = tmp_path / "sub-Z01_task-SR_run-01_events.tsv"
    header = "onset\tduration\ttrial_type\tsentence_id\tword_index\tn_fixations\tcontent\n"
    table.write_text(
        header + '2.0\t1.0\tsentence\t4\tn/a\t1\tSay "it.\n2.2\t0.15\tfixation\t4\t0\t1\tSay\n', encoding="utf-8"
    )
    (span,) = spans_beside(recording)
    assert (span.on, span.off, span.fixations.tolist()) == (1000, 1500, [[1100, 1175]])
    table.write_text(header + "x\t1.0\tsentence\t4\tn/a\t1\tA\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"_events\.tsv has no sentences"):
        spans_beside(recording)
