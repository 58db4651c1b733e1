"""The live page in Gradio: three tabs over `answers`, on 127.0.0.1 alone, without a call to any other machine."""

import logging
import os
import tempfile
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from spikeloom.pipelines.config.serve import ServeConfig
from spikeloom.pipelines.serving import answers

log = logging.getLogger("spikeloom")
AT_ONCE = 2  # answers that are computed at the same time
WAITING = 256  # requests that may wait; more are refused with a word
CSS = """
.gradio-container, main.fillable { width: 100% !important; max-width: 78rem !important; margin: 0 auto !important; }
button[role=tab][aria-selected=true] { color: var(--body-text-color) !important; }
iframe { display: block; width: 100%; height: 75vh; border: 1px solid rgba(128, 128, 128, .35); border-radius: 10px; }
"""
# As high as its content, so that only the page scrolls. Scripts stay forbidden: only this attribute runs, out here.
FITTED = (
    "const root = this.contentDocument.documentElement; "
    "new ResizeObserver(() => { this.style.height = `${root.offsetHeight + 2}px` }).observe(root)"
)


def serve(config: ServeConfig) -> None:
    """Open the page and answer until Ctrl-C. Raises ValueError without Gradio, or where the port is taken."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with tempfile.TemporaryDirectory(prefix="spikeloom-serve-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        log.info("serve: http://127.0.0.1:%d, Ctrl-C ends it", config.port)
        start(build(config, Path(folder)), config, block=True)


def start(page: Any, config: ServeConfig, *, block: bool) -> None:
    """Listen on 127.0.0.1. Raises ValueError where the port is taken."""
    gradio = _gradio()
    page.queue(default_concurrency_limit=AT_ONCE, max_size=WAITING)
    # By name: nothing is loaded from elsewhere.
    theme = gradio.themes.Soft(
        font=["system-ui", "DejaVu Sans", "sans-serif"], font_mono=["DejaVu Sans Mono", "monospace"]
    ).set(  # violet and grey of the theme are a shade too light to be read
        block_title_text_color="*primary_700", block_label_text_color="*primary_700",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
        checkbox_label_background_fill_selected="*primary_600", body_text_color_subdued="*neutral_500",
    )  # fmt: skip
    try:
        page.launch(
            server_name="127.0.0.1", server_port=config.port, share=False, inbrowser=config.inbrowser, quiet=True,
            prevent_thread_lock=not block, max_file_size=config.max_mb * 1_000_000, show_error=True, ssr_mode=False,
            footer_links=[], pwa=False, theme=theme,
            css=CSS,
        )  # fmt: skip
    except OSError as error:
        raise ValueError(f"port={config.port} cannot be opened ({error}); give another port=") from error


def build(config: ServeConfig, uploads: Path) -> Any:
    """The page, not yet listening.

    Args:
        config: the model that listens, and the limits of files.
        uploads: folder that Gradio puts uploads in; nothing else is read.

    Returns:
        `gradio.Blocks`.

    Raises:
        ValueError: without Gradio, or for a model that does not stream.
    """
    gradio = _gradio()
    listener, limits = answers.Listener(config.run), answers.Limits.of(config, uploads)
    with gradio.Blocks(title="spikeloom", analytics_enabled=False) as page:
        gradio.Markdown("# spikeloom\nSpiking models on this machine. Files that you upload do not leave it.")
        with gradio.Tab("Keyword"):
            gradio.Markdown(
                f"Speak or upload a recording of up to {config.max_s:g} s. The words of the model: "
                f"{', '.join(listener.trained.class_names)}."
            )
            sound = gradio.Audio(
                sources=["upload", "microphone"], type="filepath", label="Recording", elem_id="sound", buttons=[]
            )
            _answering(gradio, "Recognise", "recognise", lambda file: listener(file, limits), [sound])
        with gradio.Tab("EEG decoder"):
            gradio.Markdown(
                "Do decoded sentences depend on the EEG? Upload the outputs of a decoder with the true sentences and, "
                "if there is one, the same file of a control trained on noise."
            )
            with gradio.Row():
                decoded = gradio.File(
                    label="Decoded sentences",
                    elem_id="decoded",
                    file_types=list(answers.DECODED),
                    type="filepath",
                    height=170,
                )
                noise = gradio.File(
                    label="Noise control (optional)",
                    elem_id="control",
                    file_types=list(answers.DECODED),
                    type="filepath",
                    height=170,
                )
            _answering(
                gradio, "Judge", "judge", lambda file, control: answers.judge(file, control, limits), [decoded, noise]
            )
        with gradio.Tab("Chip cost"):
            gradio.Markdown(
                "Energy, time and traffic of one training step: of a published network, of `workload.json` from an "
                "export, or of an ONNX file."
            )
            with gradio.Row():
                network = gradio.Dropdown(list(answers.PUBLISHED), value="s_resnet18", label="Published network")
                file = gradio.File(
                    label="Your network (optional)",
                    elem_id="network",
                    file_types=list(answers.NETWORKS),
                    type="filepath",
                    height=170,
                )
            with gradio.Row():
                chip = gradio.Dropdown(answers.chips(), value="neuromc", label="Chip")
                zeros = gradio.Radio(list(answers.SPARSITIES), value="gating", label="Zeros on the chip")
            with gradio.Row():
                cores = gradio.Slider(1, answers.MOST_CORES, value=20, step=1, label="Cores")
                batch = gradio.Slider(1, answers.MOST_BATCH, value=16, step=1, label="Batch (samples)")
                activity = gradio.Slider(0.01, 1, value=0.2, step=0.01, label="Assumed spike density")
            shapes = gradio.Textbox(
                label="Input shape of an ONNX file that leaves it open, such as 1x3x32x32", max_lines=1
            )

            def priced(
                name: str, own: str | None, on: str, rule: str, n: float, size: float, density: float, given: str
            ) -> Any:
                return answers.price(
                    name,
                    own,
                    limits,
                    chip=on,
                    cores=int(n),
                    batch=int(size),
                    zeros=rule,
                    activity=density,
                    shapes=given,
                )

            _answering(gradio, "Price", "price", priced, [network, file, chip, zeros, cores, batch, activity, shapes])
    return page


def _answering(gradio: Any, label: str, name: str, answer: Callable[..., answers.Answer], inputs: list[Any]) -> None:
    """A button, and below it the answer in words and as a page; an error is one line."""
    button = gradio.Button(label, variant="primary")
    said, shown = gradio.Markdown(), gradio.HTML(padding=False)

    def run(*given: Any) -> tuple[str, str]:
        try:
            found = answer(*given)
        except (ValueError, OSError) as error:
            raise gradio.Error(str(error).splitlines()[0], print_exception=False, title="Not possible") from error
        frame = f'<iframe title="{escape(label)}: result" sandbox="allow-downloads allow-same-origin"'
        return f"**{found.said}**", f'{frame} onload="{escape(FITTED)}" srcdoc="{escape(found.page)}"></iframe>'

    button.click(run, inputs, [said, shown], api_name=name, show_progress="full")


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise ValueError(f"the page needs Gradio ({error}); pip install 'spikeloom[demo]'") from error
    return gradio
