"""Runs here end in pages; their figures are built and left undrawn, for drawing is most of a page's time."""

from collections.abc import Iterator

import pytest
from matplotlib.figure import Figure

from spikeloom.accel.common import report


def blank(figure: Figure, name: str, label: str) -> str:
    """An empty <svg> in a figure's place."""
    assert figure.axes, f"{label}: a figure without axes"
    return f'<svg role="img" aria-label="{label}" id="{name}"></svg>'


@pytest.fixture(scope="module", autouse=True)
def figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pages are drawn whole only in the modules that say DRAWN = True."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "DRAWN", False):
            patch.setattr(report, "_svg", blank)
        yield
