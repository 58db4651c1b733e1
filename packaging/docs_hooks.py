"""What the manual adds to Markdown (equations between $$ as MathML, examples with what they print), and to its pages
what the theme lacks when they are opened from a folder.

A paragraph `@example NAME` becomes examples/gallery/NAME.py: its docstring, its code and its output, from a run in an
empty folder. Outputs are kept in build/gallery by a hash of the code, so that a second build runs nothing.
"""

import ast
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build/gallery"
LONGEST_S = 1200


def on_page_markdown(markdown: str, **context: Any) -> str:
    """The page with its equations and examples in place."""
    markdown = re.sub(r"^@example (\w+)$", lambda found: example(found[1]), markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^\$\$\n(.*?)\n\$\$$", lambda found: mathml(found[1]), markdown, flags=re.MULTILINE | re.DOTALL)
    if context["page"].file.src_uri == "theory.md":  # elsewhere a dollar begins the name of a variable
        markdown = re.sub(r"\$([^$\n]+)\$", lambda found: mathml(found[1], "inline"), markdown)
    return markdown


def on_post_page(output: str, **context: Any) -> str:
    """The page without script errors.

    The switch of colours looks for two style sheets of a highlighter that is not loaded. Search needs a worker, which
    browsers refuse to pages from a folder: there it is not loaded, and its button is hidden.
    """
    output = output.replace("</head>", '<meta id="hljs-light"><meta id="hljs-dark">\n</head>', 1)
    return re.sub(r'<script src="([^"]*search/main\.js)"></script>', lambda found: SEARCH % found[1], output)


SEARCH = """<script>
if (location.protocol !== "file:") document.write('<script src="%s"><' + '/script>');
else document.querySelectorAll('[data-bs-target="#mkdocs_search_modal"]').forEach(link => link.remove());
</script>"""


def mathml(tex: str, display: str = "block") -> str:
    """One equation, which browsers draw without a script."""
    from latex2mathml.converter import convert

    return str(convert(" ".join(tex.split()), display=display))


def example(name: str) -> str:
    """Docstring, code and output of an example. Raises ValueError where it fails."""
    source = (ROOT / "examples/gallery" / f"{name}.py").read_text("utf-8")
    said = ast.get_docstring(ast.parse(source)) or ""
    code = source[source.index('"""', 3) + 3 :].strip()
    return f"{said}\n\n```python\n{code}\n```\n\nprints\n\n```text\n{printed(name, source)}\n```\n"


def printed(name: str, source: str) -> str:
    """What an example prints, from the last run of this very code or from a run now."""
    kept = KEPT / f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:12]}.txt"
    if not kept.is_file():
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPIKELOOM_DATA": folder}
            run = subprocess.run(
                [sys.executable, ROOT / "examples/gallery" / f"{name}.py"], cwd=folder, env=environment,
                capture_output=True, text=True, timeout=LONGEST_S,
            )  # fmt: skip
        if run.returncode:
            raise ValueError(f"examples/gallery/{name}.py failed:\n{run.stderr[-2000:]}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(run.stdout.strip() + "\n", encoding="utf-8")
    return kept.read_text("utf-8").strip()
