// As much of a browser's document as the server's page needs, to run its modules where there is no browser.
// It knows no layout, no style and no policy: what depends on those is tested in Chromium, tests/pages.

class Node {
  parentNode = null;
  childNodes = [];

  append(...parts) {
    for (const part of parts) {
      const nodes = part instanceof Fragment ? [...part.childNodes] : [part instanceof Node ? part : new Text(part)];
      for (const node of nodes) {
        node.parentNode?.childNodes.splice(node.parentNode.childNodes.indexOf(node), 1);
        node.parentNode = this;
        this.childNodes.push(node);
      }
    }
  }

  replaceChildren(...parts) {
    for (const node of this.childNodes) node.parentNode = null;
    this.childNodes = [];
    this.append(...parts);
  }

  get textContent() {
    return this.childNodes.map(node => node.textContent).join("");
  }

  set textContent(text) {
    this.replaceChildren(...(text === "" ? [] : [String(text)]));
  }
}

class Text extends Node {
  constructor(text) {
    super();
    this.data = String(text);
  }

  get textContent() {
    return this.data;
  }
}

class Fragment extends Node {}

const PART = /([\w-]+)|#([\w-]+)|\.([\w-]+)|\[([\w-]+)="([^"]*)"\]/gy;

function fits(node, compound) {
  const parts = [...compound.matchAll(PART)];
  if (parts.map(part => part[0]).join("") !== compound) throw new Error(`no selector of this document: ${compound}`);
  return parts.every(([, tag, id, kind, name, value]) => {
    if (tag) return node.tagName === tag.toUpperCase();
    if (id) return node.id === id;
    if (kind) return node.classList.contains(kind);
    return node.getAttribute(name) === value;
  });
}

const reflected = (name, other = "") => ({
  get() { return this.getAttribute(name) ?? other; },
  set(value) { this.setAttribute(name, value); },
});

const flag = name => ({
  get() { return this.getAttribute(name) !== null; },
  set(value) { value ? this.setAttribute(name, "") : this.removeAttribute(name); },
});

class Element extends Node {
  #listeners = {};
  #value = null;

  constructor(name, attributes = {}) {
    super();
    this.tagName = name.toUpperCase();
    this.attributes = new Map(Object.entries(attributes));
    this.style = {set: {}, setProperty(property, value) { this.set[property] = value; }};
  }

  getAttribute(name) { return this.attributes.get(name) ?? null; }
  setAttribute(name, value) { this.attributes.set(name, String(value)); }
  removeAttribute(name) { this.attributes.delete(name); }

  get tabIndex() { return Number(this.getAttribute("tabindex") ?? -1); }
  set tabIndex(value) { this.setAttribute("tabindex", value); }

  get dataset() {
    return new Proxy(this, {
      get: (node, name) => node.getAttribute(`data-${name}`) ?? undefined,
      set: (node, name, value) => { node.setAttribute(`data-${name}`, value); return true; },
    });
  }

  get classList() {
    const all = () => this.className.split(" ").filter(Boolean);
    return {
      contains: name => all().includes(name),
      add: name => { this.className = [...new Set([...all(), name])].join(" "); },
      remove: name => { this.className = all().filter(other => other !== name).join(" "); },
      toggle: (name, on) => (on ? this.classList.add(name) : this.classList.remove(name)),
    };
  }

  get value() {
    if (this.tagName === "OPTION") return this.getAttribute("value") ?? this.textContent;
    return this.#value ?? (this.tagName === "SELECT" ? this.querySelector("option")?.value ?? "" : "");
  }

  set value(value) {
    if (this.tagName === "OPTION") return this.setAttribute("value", value);
    let kept = String(value);
    if (this.getAttribute("type") === "range") {
      const [low, high] = [Number(this.getAttribute("min")), Number(this.getAttribute("max"))];
      kept = String(Math.min(Math.max(Number(kept), low), high));
    }
    if (this.tagName === "SELECT" && !this.querySelectorAll("option").some(one => one.value === kept)) kept = "";
    this.#value = kept;
  }

  matches(selector) {
    const steps = selector.trim().split(/\s+/);
    if (!fits(this, steps.pop())) return false;
    let above = this.parentNode;
    while (steps.length) {
      const step = steps.pop();
      while (above instanceof Element && !fits(above, step)) above = above.parentNode;
      if (!(above instanceof Element)) return false;
      above = above.parentNode;
    }
    return true;
  }

  closest(selector) {
    let node = this;
    while (node instanceof Element && !node.matches(selector)) node = node.parentNode;
    return node instanceof Element ? node : null;
  }

  querySelectorAll(selector) {
    const below = node => node.childNodes.flatMap(one => (one instanceof Element ? [one, ...below(one)] : []));
    return below(this).filter(node => node.matches(selector));
  }

  querySelector(selector) { return this.querySelectorAll(selector)[0] ?? null; }

  addEventListener(type, listener) { (this.#listeners[type] ??= []).push(listener); }

  dispatchEvent(event) {
    event.target ??= this;
    for (const listener of this.#listeners[event.type] ?? []) listener(event);
    if (this.parentNode) this.parentNode.dispatchEvent(event);
    return !event.defaultPrevented;
  }

  scrollIntoView() {}

  focus() {
    if (this.disabled || this.closest("[hidden=\"\"]")) return;
    document.activeElement = this;
    fire(this, "focusin");
  }

  click() {
    if (this.disabled) return;
    fire(this, "click");
    if (this.tagName === "BUTTON" && this.getAttribute("type") === "submit") fire(this.closest("form"), "submit");
  }
}

for (const [name, attribute] of [["id"], ["className", "class"], ["scope"], ["placeholder"]]) {
  Object.defineProperty(Element.prototype, name, reflected(attribute ?? name));
}
for (const name of ["hidden", "disabled", "open"]) Object.defineProperty(Element.prototype, name, flag(name));

/** An event at an element; whether its default is to happen. */
export function fire(node, type, fields = {}) {
  const event = {type, defaultPrevented: false, preventDefault() { this.defaultPrevented = true; }, ...fields};
  return node.dispatchEvent(event);
}

function built([name, attributes, children]) {
  const node = new Element(name, attributes);
  node.append(...children.map(child => (typeof child === "string" ? child : built(child))));
  return node;
}

/** Make a tree, ["html", {...}, [...]], the document of this process; addresses are below `address`. */
export function open(tree, address, hash) {
  const root = built(tree);
  const whole = Object.assign(root, {
    body: root.querySelector("body"),
    activeElement: null,
    createElement: name => new Element(name),
    createDocumentFragment: () => new Fragment(),
  });
  root.getElementById = id => root.querySelector(`#${id}`);
  const kept = new Map();
  const sent = globalThis.fetch;
  Object.assign(globalThis, {
    document: whole,
    addEventListener: (type, listener) => root.addEventListener(type, listener),
    location: {hash},
    matchMedia: () => ({matches: false}),
    history: {replaceState(state, title, next) { globalThis.location.hash = next; }},
    sessionStorage: {
      getItem: name => kept.get(name) ?? null,
      setItem: (name, value) => kept.set(name, value),
      removeItem: name => kept.delete(name),
    },
    // Node.js knows no cache and no cookies.
    fetch: (path, {cache, credentials, ...options} = {}) => sent(new URL(path, address), options),
  });
}
