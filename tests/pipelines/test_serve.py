"""The live page: its answers are those of the library, uploads cannot lead elsewhere, many at once get their own."""

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import spikeloom
from spikeloom.pipelines.config.serve import ServeConfig
from spikeloom.pipelines.serving import answers
from spikeloom.pipelines.serving.answers import Limits
from tests.browser import COMPLAINTS, WIDTHS, chromium
from tests.conftest import data_folder

DRAWN = bool(os.environ.get("SPIKELOOM_SCREENSHOTS"))  # a folder for pictures of the page, to look at


@pytest.fixture
def limits(tmp_path: Path) -> Limits:
    return Limits.of(ServeConfig(max_mb=1, max_s=10), tmp_path)


@pytest.fixture(scope="module")
def listener() -> answers.Listener:
    return answers.Listener("builtin:fsdd")


def spoken(folder: Path) -> tuple[Path, str]:
    """A spoken digit between two silences, 8 kHz, and its name; skips without the recordings."""
    for file in sorted(data_folder("fsdd/recordings").glob("7_*_1*.wav")):
        samples, rate_hz = soundfile.read(file, dtype="float32")
        padded = np.concatenate([np.zeros(rate_hz), samples, np.zeros(rate_hz)]).astype(np.float32)
        soundfile.write(folder / file.name, padded, rate_hz)
        return folder / file.name, "7"
    pytest.skip("no spoken digits")


def decoded(folder: Path) -> Path:
    path = folder / "decoded.txt"
    rows = [
        ("a quiet house", "a quiet house on the hill"),
        ("the film is", "the film is long"),
        ("he reads", "he reads"),
    ]
    path.write_text("\n".join(f"Predicted: {said}\nTrue: {true}" for said, true in rows))
    return path


# --- uploads --------------------------------------------------------------------------------------------------------


def test_files_outside_the_folder_of_uploads_are_refused(tmp_path, limits) -> None:
    inside = tmp_path / "uploads"
    inside.mkdir()
    limits = replace(limits, folder=inside)
    secret = tmp_path / "secret.wav"
    soundfile.write(secret, np.ones(10), 8000)
    (inside / "link.wav").symlink_to(secret)
    for path in (secret, inside / "../secret.wav", inside / "link.wav", "/etc/passwd", inside, inside / "none.wav"):
        with pytest.raises(ValueError, match="is not an uploaded file"):
            limits.checked(path, (".wav", ""), "a recording")


def test_other_kinds_sizes_and_nothing_at_all_are_refused_with_the_remedy(tmp_path, limits) -> None:
    (tmp_path / "a.exe").write_bytes(b"x")
    (tmp_path / "a.wav").write_bytes(bytes(1_000_001))
    for file, said in ((None, "no file was given"), (tmp_path / "a.exe", r"upload one of \.wav"),
                       (tmp_path / "a.wav", r"1,000,001 bytes, more than 1,000,000;")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            limits.checked(file, answers.SOUNDS, "a recording")
    with pytest.raises(ValueError, match="max_mb=0"):
        Limits.of(ServeConfig(max_mb=0), tmp_path)


# --- answers --------------------------------------------------------------------------------------------------------


def test_a_spoken_digit_is_recognised_with_its_raster_and_energy(tmp_path, limits, listener) -> None:
    file, word = spoken(tmp_path)
    found = listener(file, limits)
    assert re.match(rf"{word} at \d\.\d\d s", found.said) and "µJ" in found.said
    for title in ("Keywords over time", f"The word “{word}”", "Spikes while the network processes"):
        assert title in found.page
    assert listener(file, limits) == found


def test_recordings_that_cannot_be_used_say_why(tmp_path, limits, listener) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 8000)
    soundfile.write(tmp_path / "long.flac", np.ones(11 * 8000) / 2, 8000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    for name, said in (("silent.wav", "silent"), ("long.flac", "longer than 10 s"), ("broken.wav", r"broken\.wav")):
        with pytest.raises(ValueError, match=said):
            listener(tmp_path / name, limits)
    with pytest.raises(ValueError):
        answers.Listener("builtin:digits")


def test_a_recording_shorter_than_a_clip_or_without_a_keyword_is_answered(tmp_path, limits, listener) -> None:
    noise = np.random.default_rng(0).normal(0, 1e-3, 2000)
    soundfile.write(tmp_path / "short.wav", noise, 8000)
    assert "One clip costs" in listener(tmp_path / "short.wav", limits).said


def test_decoded_sentences_are_judged_as_by_score(tmp_path, limits) -> None:
    file = decoded(tmp_path)
    found = answers.judge(file, None, limits, n_permutations=99)
    assert found.said == spikeloom.score(file, n_permutations=99)["verdict"]
    assert "The tests" in found.page and "BLEU-1" in found.page
    shutil.copy(file, tmp_path / "noise.txt")
    assert "EEG" in answers.judge(file, tmp_path / "noise.txt", limits, n_permutations=99).page
    (tmp_path / "empty.txt").write_text("nothing\n")
    with pytest.raises(ValueError, match=r"empty\.txt"):
        answers.judge(tmp_path / "empty.txt", None, limits)


def test_prices_are_those_of_the_simulator(limits) -> None:
    report = spikeloom.simulate("s_vgg16", chip="neuromc", batch_size=2)
    found = answers.price("s_vgg16", None, limits, batch=2, activity=1.0, zeros="gating")
    assert f"{report.time_per_iteration_ms:.3g} ms" in found.said
    assert "Energy by layer" in found.page
    fewer = answers.price("s_vgg16", None, limits, batch=2, cores=4, activity=0.1, zeros="skipping")
    assert fewer.said != found.said and "4 cores" in fewer.said


def test_ones_own_network_is_priced_at_any_batch(tmp_path, limits) -> None:
    from spikeloom.accel.trainer.networks import PUBLISHED

    workload = PUBLISHED["s_vgg16"](4, 2)
    workload.to_json(tmp_path / "workload.json")
    assert answers.with_batch(PUBLISHED["s_vgg16"](4, 8), 2) == workload
    own = answers.price("", tmp_path / "workload.json", limits, batch=8)
    assert own.said == answers.price("s_vgg16", None, limits, batch=8).said
    (tmp_path / "bad.json").write_text("{}")
    for given in ({"file": tmp_path / "bad.json"}, {"chip": "none"}, {"zeros": "some"}, {"cores": 0}, {"batch": 10**9},
                  {"activity": 0.0}, {"network": "none"}):  # fmt: skip
        choices = {"network": "s_vgg16", "file": None, **given}
        with pytest.raises(ValueError):
            answers.price(limits=limits, **choices)


def test_an_onnx_file_is_priced(tmp_path, limits) -> None:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(np.ones((4, 8), np.float32), "w")
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, ["N", 4])], [value("y", 1, ["N", 8])], [weight])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "net.onnx")
    found = answers.price("", tmp_path / "net.onnx", limits, batch=4, shapes="2x4")
    assert "batch 4" in found.said
    with pytest.raises(ValueError, match=r"net\.onnx"):
        answers.price("", tmp_path / "net.onnx", limits, shapes="2x5")


def settings(number: int) -> dict:
    """One of twelve choices of chip, batch and cores."""
    return {"chip": ("neuromc", "cacti28")[number % 2], "batch": 1 + number % 3, "cores": (4, 20)[number // 6 % 2]}


def test_requests_at_the_same_time_get_the_answers_of_requests_alone(limits) -> None:
    alone = [answers.price("s_vgg16", None, limits, **settings(n)) for n in range(3)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda n: answers.price("s_vgg16", None, limits, **settings(n % 3)), range(12)))
    assert all(together[n] == alone[n % 3] for n in range(12))


# --- the page -------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a page that listens."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'spikeloom[demo]'")
    from spikeloom.pipelines.serving import page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    (tmp_path / "uploads").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = ServeConfig(port=port, max_mb=1)
    built = page.build(config, tmp_path / "uploads")
    page.start(built, config, block=False)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        built.close()


def look(tab: Any, name: str, title: str) -> None:
    """The answer is there with its section `title`, whole at every width."""
    tab.frame_locator("iframe:visible").locator(f"h2:has-text('{title}')").first.wait_for(timeout=120_000)
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 1200})
        tab.wait_for_timeout(300)
        root, frame = "document.documentElement", "[...document.querySelectorAll('iframe')].find(e => e.offsetHeight)"
        assert tab.evaluate(f"{root}.scrollWidth <= {root}.clientWidth + 1"), width
        inner = f"{frame}.contentDocument.documentElement"
        assert tab.evaluate(f"{inner}.scrollHeight <= {inner}.clientHeight + 1"), width  # nothing scrolls inside
        if folder := os.environ.get("SPIKELOOM_SCREENSHOTS"):
            tab.screenshot(path=f"{folder}/serve_{name}_{width}.png", full_page=True)


def test_the_page_answers_by_upload_and_click_in_a_browser(served, tmp_path) -> None:
    file, word = spoken(tmp_path)
    with chromium() as browser:
        tab, said = browser.new_page(viewport={"width": 1400, "height": 1200}), list[str]()
        tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(served)
        tab.wait_for_selector("text=Keyword")
        tab.set_input_files("#sound input[type=file]", str(file))
        tab.wait_for_selector("#sound [data-testid^=waveform]")
        tab.get_by_role("button", name="Recognise").click()
        tab.wait_for_selector(f"text=/{word} at \\d/", timeout=120_000)
        look(tab, "keyword", "Keywords over time")
        tab.get_by_role("tab", name="EEG decoder").click()
        tab.set_input_files("#decoded input[type=file]", str(decoded(tmp_path)))
        tab.wait_for_selector("#decoded >> text=/decoded/")
        tab.get_by_role("button", name="Judge").click()
        look(tab, "eeg", "The tests")
        tab.get_by_role("tab", name="Chip cost").click()
        tab.get_by_role("button", name="Price").click()
        tab.wait_for_selector("text=/mJ, .* for one training step/", timeout=120_000)
        look(tab, "cost", "Energy by layer")
        assert said == []
        for scheme in ("light", "dark"):
            tab = browser.new_context(color_scheme=scheme).new_page()
            tab.goto(f"{served}/?__theme={scheme}")
            for name in ("Keyword", "EEG decoder", "Chip cost"):
                tab.get_by_role("tab", name=name).click()
                tab.wait_for_timeout(500)
                assert [wrong for wrong in tab.evaluate(COMPLAINTS) if wrong.startswith("contrast")] == []


def test_the_page_refuses_paths_and_files_that_it_must_not_read(served, tmp_path) -> None:
    gradio_client = pytest.importorskip("gradio_client")
    import urllib.error
    import urllib.request

    for path in ("/etc/passwd", "../../../../etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{served}/gradio_api/file={path}")
        assert refused.value.code in (403, 404)
    client = gradio_client.Client(served, verbose=False)
    # Of the right kind, but not uploaded: asked for without the client, which would upload it.
    named = {"path": str(decoded(tmp_path)), "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [named, None]}).encode()
    request = urllib.request.Request(f"{served}/gradio_api/call/judge", body, {"Content-Type": "application/json"})
    event = json.load(urllib.request.urlopen(request))["event_id"]
    answer = urllib.request.urlopen(f"{served}/gradio_api/call/judge/{event}").read().decode()
    assert "event: error" in answer and "event: complete" not in answer
    with pytest.raises(Exception, match=r"no file was given"):
        client.predict(None, None, api_name="/judge")


@pytest.mark.slow
def test_two_hundred_requests_at_once_get_their_own_answers(served, limits) -> None:
    gradio_client = pytest.importorskip("gradio_client")
    client = gradio_client.Client(served, verbose=False)

    def ask(n: int):
        given = settings(n)
        return client.submit(
            "s_vgg16", None, given["chip"], "gating", given["cores"], given["batch"], 0.2, "", api_name="/price"
        )

    expected = [answers.price("s_vgg16", None, limits, **settings(n)).said for n in range(12)]
    jobs = [ask(n) for n in range(200)]
    assert all(expected[n % 12] in jobs[n].result(timeout=3000)[0] for n in range(200))
