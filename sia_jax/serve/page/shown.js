// Foreign text on the page: it is text and never markup, nothing in it is hidden, and nothing in it turns
// what stands beside it around. What sia_jax.files.shown does for a terminal; more is made visible here, for
// one looks at single tokens: everything that Unicode lets a renderer leave out.

const HIDDEN = /(?![\t\n])[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\ufff9-\ufffb]/gu;

/** A character as it is shown in place of itself: an escape (\x1b, \u202e), for which every font has the signs. */
function escaped(character) {
  const code = character.codePointAt(0);
  const digits = code.toString(16);
  if (code < 0x100) return `\\x${digits.padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${digits.padStart(4, "0")}` : `\\u{${digits}}`;
}

/** A text with what is hidden in it made visible; tabs and ends of lines stay. */
export function shown(text) {
  return text.replace(HIDDEN, escaped);
}

/** The same on one line, where white space is visible too; "∅" if there is nothing. */
export function shownLine(text) {
  return text === "" ? "∅" : shown(text).replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

/** Put a foreign text into an element: what is escaped stands apart, so that nobody can write an escape. */
export function fill(node, text) {
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > end) node.append(text.slice(end, match.index));
    node.append(element("span", escaped(match[0]), "escape"));
    end = match.index + match[0].length;
  }
  if (end < text.length) node.append(text.slice(end));
  return node;
}

/** An element with a text and a class. */
export function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
