"""The contrast of texts in a page, measured in a browser by the formula of WCAG 2.2."""

from tests.support.chromium import Tab

_CONTRAST = """
const contrast = (node, colour, opacity) => {
  const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const over = layers => {
    for (const [fill, alpha] of layers) {
      paint.globalAlpha = alpha; paint.fillStyle = fill; paint.fillRect(0, 0, 1, 1);
    }
    return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const luminance = rgb => rgb.reduce((sum, x, i) => sum + linear(x / 255) * [.2126, .7152, .0722][i], 0);
  const ground = [];
  for (let under = node; under; under = under.parentElement) {
    ground.unshift([getComputedStyle(under).backgroundColor, 1]);
  }
  const [a, b] = [over(ground), over([...ground, [colour, opacity]])].map(luminance);
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
};
"""

_OF_SELECTED = """
(() => {
  CONTRAST
  return [...document.querySelectorAll(SELECTOR)].map(node => {
    for (const [name, value] of Object.entries(DEEPEST)) node.style.setProperty(name, value);
    return contrast(node, getComputedStyle(node).color, 1);
  });
})()
"""

_OF_ALL = """
(() => {
  CONTRAST
  const opacity = node => (node ? Number(getComputedStyle(node).opacity) * opacity(node.parentElement) : 1);
  const found = [];
  const look = (node, text, style) => {
    const alpha = Number(style.opacity) * opacity(node.parentElement);
    found.push([contrast(node, style.color, alpha), `${node.tagName} ${node.id} ${node.className}: ${text}`]);
  };
  for (const node of document.querySelectorAll('body *')) {
    if (!node.checkVisibility({visibilityProperty: true}) || node.closest(':disabled')) continue;
    const parts = [...node.childNodes].filter(part => part.nodeType === 3);
    const own = parts.map(part => part.data).join('').trim();
    if (own) look(node, own.slice(0, 30), getComputedStyle(node));
    if (node.value && node.type !== 'range') look(node, node.value, getComputedStyle(node));
    if (node.placeholder) look(node, node.placeholder, getComputedStyle(node, '::placeholder'));
    for (const part of ['::before', '::after']) {
      const style = getComputedStyle(node, part);
      if (/^"./.test(style.content)) look(node, `${part} ${style.content}`, style);
    }
  }
  return found;
})()
"""


def contrasts(tab: Tab, selector: str, deepest: dict[str, str] | None = None) -> list[float]:
    """Of each element's text with its ground.

    Args:
      tab: an open page.
      selector: of the elements.
      deepest: properties of CSS that each is given first, such as the highest entropy of all.
    """
    expression = _OF_SELECTED.replace("CONTRAST", _CONTRAST)
    expression = expression.replace("SELECTOR", repr(selector)).replace("DEEPEST", repr(deepest or {}))
    found: list[float] = tab.evaluate(expression)
    return found


def all_contrasts(tab: Tab) -> list[tuple[float, str]]:
    """Of every text of the page that is seen and not disabled, fields and generated texts too, and which.

    Args:
      tab: an open page.
    """
    found: list[list[object]] = tab.evaluate(_OF_ALL.replace("CONTRAST", _CONTRAST))
    return [(float(str(contrast)), str(text)) for contrast, text in found]
