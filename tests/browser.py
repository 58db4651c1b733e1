"""Pages in a real browser: Debian's chromium through playwright; tests skip, with the reason, without them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WIDTHS = (390, 768, 1400)  # a telephone, a tablet, a desk
# In the page: what a reader would complain about. Sizes in px; contrast after WCAG 2.1.
COMPLAINTS = r"""
() => {
  const found = [], root = document.documentElement;
  if (root.scrollWidth > root.clientWidth + 1) found.push(`the page scrolls sideways: ${root.scrollWidth} px`);
  const rgba = text => (text.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const scrolls = element => {
    for (let e = element; e && e !== document.body; e = e.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(e).overflowX)) return true;
    return false;
  };
  const behind = (element, box) => {
    const svg = element.closest("svg"), x = box.x + box.width / 2, wide = element.closest(".wide");
    if (wide && (x < wide.getBoundingClientRect().left || x > wide.getBoundingClientRect().right)) return null;
    if (svg) for (const e of document.elementsFromPoint(x, box.y + box.height / 2)) {
      if (e === element || e.contains(element) || !svg.contains(e)) continue;
      if (e.tagName === "image") return null;
      const fill = rgba(getComputedStyle(e).fill), style = getComputedStyle(e);
      const part = (fill[3] ?? 1) * style.fillOpacity * style.opacity;
      if (["path", "rect", "circle", "use"].includes(e.tagName) && style.fill !== "none" && part > .5) return fill;
    }
    for (let e = svg || element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour.length && (colour[3] ?? 1) > .5) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    if (!node.data.trim() || ["STYLE", "SCRIPT"].includes(node.parentElement.tagName)) continue;
    const element = node.parentElement, range = document.createRange(), style = getComputedStyle(element);
    if (style.visibility === "hidden" || style.display === "none") continue;
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect(), text = node.data.trim().slice(0, 40);
    if (!box.width) continue;
    const svg = element.closest("svg");
    if (svg) {
      const frame = svg.getBoundingClientRect();
      if (box.left < frame.left - 2 || box.right > frame.right + 2
          || box.top < frame.top - 2 || box.bottom > frame.bottom + 2)
        found.push(`cut at the edge of a figure: ${text}`);
    }
    if (!scrolls(element) && (box.right > root.clientWidth + 1 || box.left < -1)) found.push(`cut: ${text}`);
    const ink = rgba(svg ? style.fill : style.color), paper = behind(element, box);
    if (!paper) continue;
    const [high, low] = [light(ink), light(paper)].sort((a, b) => b - a), contrast = (high + .05) / (low + .05);
    if (contrast < 4.5) found.push(`contrast ${contrast.toFixed(2)} of ${ink} on ${paper}: ${text}`);
  }
  if (root.clientWidth <= 640) for (const table of document.querySelectorAll(".stacks"))
    if (table.scrollWidth > table.clientWidth + 1)
      found.push(`a table that is stacked scrolls: ${table.getAttribute("aria-label")}`);
  for (const figure of document.querySelectorAll("main svg, img, canvas"))
    if (!figure.closest("[aria-hidden=true]") && !(figure.getAttribute("aria-label") || figure.getAttribute("alt")))
      found.push(`a figure without a text: ${figure.outerHTML.slice(0, 60)}`);
  return [...new Set(found)];
}
"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright. Skips the test where chromium or playwright is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def complaints(browser: Any, url: str, width: int, scheme: str) -> list[str]:
    """What is wrong with a page at a width in a colour scheme (light, dark), console errors included."""
    context = browser.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme)
    try:
        page, said = context.new_page(), list[str]()
        page.set_default_timeout(300_000)  # also on a machine that is busy
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": width, "height": min(height, 30_000)})  # what is hit-tested must be in view
        return [*said, *page.evaluate(COMPLAINTS)]
    finally:
        context.close()
