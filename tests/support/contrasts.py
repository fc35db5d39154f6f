"""The contrast of texts in a page, measured in a browser."""

from tests.support.chromium import Tab

_CONTRASTS = """
[...document.querySelectorAll(SELECTOR)].map(node => {
  for (const [name, value] of Object.entries(DEEPEST)) node.style.setProperty(name, value);
  const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const over = colours => {
    for (const colour of colours) { paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); }
    return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const luminance = rgb => rgb.reduce((sum, x, i) => sum + linear(x / 255) * [.2126, .7152, .0722][i], 0);
  const ground = [];
  for (let under = node; under; under = under.parentElement) {
    ground.unshift(getComputedStyle(under).backgroundColor);
  }
  const [a, b] = [over(ground), over([...ground, getComputedStyle(node).color])].map(luminance);
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
})
"""


def contrasts(tab: Tab, selector: str, deepest: dict[str, str] | None = None) -> list[float]:
    """Of each element's text with its ground, by the formula of WCAG 2.2.

    Args:
      tab: an open page.
      selector: of the elements.
      deepest: properties of CSS that each is given first, such as the highest entropy of all.
    """
    expression = _CONTRASTS.replace("SELECTOR", repr(selector)).replace("DEEPEST", repr(deepest or {}))
    found: list[float] = tab.evaluate(expression)
    return found
