// A prompt goes to the server twice, unsteered and steered, and both replies are shown as they come.

import {Trouble, chunksOf, modelsOf} from "./client.js";
import {Control, listModels} from "./controls.js";
import {showToken} from "./panel.js";
import {Reply} from "./reply.js";
import {NUMBERS, bodiesOf, fromHash, toHash} from "./settings.js";
import {element, shown} from "./shown.js";

const KEY = "sia-key";
const NAMES = {base: "Base", steered: "Steered"};

const byId = id => document.getElementById(id);
const replies = {base: new Reply(byId("base")), steered: new Reply(byId("steered"))};
const controls = {};
let models = [];
let key = storedKey();
let chosen = null; // the token that the panel shows
let running = null; // what stops the run that goes on

// ---------------------------------------------------------------------------------------------- the key

// A browser may refuse a page its storage: the key then lasts until the page is left.
function storedKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

function keepKey(given) {
  key = given;
  try {
    if (given) sessionStorage.setItem(KEY, given);
    else sessionStorage.removeItem(KEY);
  } catch {
    // See above.
  }
}

// ---------------------------------------------------------------------------------------------- troubles

function complain(lines) {
  byId("trouble").replaceChildren(...lines.map(line => element("p", line)));
}

function sentence(error) {
  if (error instanceof Trouble) return `${error.message.replace(/\.$/, "")}. ${error.remedy}`;
  return `This page has failed: ${shown(String(error))}. Reload it.`;
}

/** Say what went wrong, once if it was the same in both replies. */
function explain(errors) {
  const said = Object.entries(errors).map(([name, error]) => [NAMES[name], sentence(error)]);
  const same = said.length === 2 && said[0][1] === said[1][1];
  complain(same ? [said[0][1]] : said.map(([name, line]) => (name ? `${name}: ${line}` : line)));
  // Whoever is far down in a reply sees it too.
  byId("trouble").scrollIntoView({block: "nearest"});
  if (Object.values(errors).some(error => error.status === 401)) {
    byId("unlock").hidden = false;
    byId("key").focus();
  }
}

// ---------------------------------------------------------------------------------------------- settings

function settings() {
  const found = {model: byId("model").value || fromHash(location.hash).model};
  for (const name of Object.keys(NUMBERS)) found[name] = controls[name].value;
  return found;
}

/** Say the settings on one line, which stands in for them while they are folded. */
function tellSettings() {
  const numbers = Object.values(controls).map(control => control.text);
  const label = models.find(model => model.id === byId("model").value)?.label;
  byId("settings-said").textContent = [...(label ? [label] : []), ...numbers].join(" · ");
}

function keepSettings() {
  tellSettings();
  history.replaceState(null, "", toHash(settings()));
}

function readPreset(name, told) {
  if (told === undefined || told === null) return null;
  try {
    const found = NUMBERS[name].read(String(told));
    // For reading alone: what stands in an empty field is not sent.
    return typeof found === "number" ? Number(found.toPrecision(3)) : found;
  } catch {
    return null; // a server of another release may tell what this page cannot show
  }
}

/** Take the model's own numbers as what an empty field stands for. */
function usePreset() {
  const sia = models.find(model => model.id === byId("model").value)?.sia ?? {};
  for (const name of ["threshold", "beta"]) controls[name].preset(readPreset(name, sia[name]));
  tellSettings();
}

function useHash() {
  const found = fromHash(location.hash);
  for (const name of Object.keys(NUMBERS)) controls[name].set(found[name]);
  if (models.some(model => model.id === found.model)) byId("model").value = found.model;
  usePreset();
}

async function loadModels() {
  const found = await modelsOf(key);
  if (!found.length) throw new Trouble("The server has no model.", {remedy: "Look at how it was started."});
  models = found.map(model => ({...model, label: shown(model.id)}));
  listModels(byId("model"), models, fromHash(location.hash).model);
  usePreset();
  byId("unlock").hidden = true;
}

/** Load the models, and say what went wrong if something did. */
async function connect() {
  try {
    await loadModels();
    complain([]);
    return true;
  } catch (error) {
    explain({"": error});
    return false;
  }
}

// ---------------------------------------------------------------------------------------------- a run

function rescale() {
  const most = Math.max(1, replies.base.highest, replies.steered.highest);
  byId("replies").style.setProperty("--scale", most.toFixed(4));
  byId("scale-end").textContent = most.toFixed(2);
}

/** One of the two replies, from request to end. */
async function write(name, body, signal) {
  const reply = replies[name];
  reply.begin();
  try {
    for await (const chunk of chunksOf(body, {key, signal})) {
      reply.take(chunk, performance.now() / 1000);
      reply.figure();
      rescale();
    }
    reply.end();
  } catch (error) {
    reply.end(error.name === "AbortError" ? "stopped by you" : "ended by an error");
    throw error;
  }
}

function ready() {
  if (byId("prompt").value.trim() === "") {
    byId("state").textContent = "Write a prompt first.";
    byId("prompt").focus();
    return false;
  }
  const wrong = Object.values(controls).find(control => !control.valid);
  if (!wrong) return true;
  byId("state").textContent = "A number cannot be read.";
  byId("settings").open = true;
  wrong.focus();
  return false;
}

function setRunning(controller) {
  running = controller;
  byId("generate").disabled = controller !== null;
  byId("stop").disabled = controller === null;
}

async function generate() {
  if (running || !ready()) return;
  const controller = new AbortController();
  const onButton = document.activeElement === byId("generate");
  setRunning(controller);
  // A disabled button would lose the focus.
  if (onButton) byId("stop").focus();
  byId("state").textContent = "Both replies are being written.";
  try {
    await run(controller.signal);
  } finally {
    const stopping = document.activeElement === byId("stop");
    setRunning(null);
    if (stopping) byId("generate").focus();
  }
}

async function run(signal) {
  complain([]);
  if (!models.length && !(await connect())) {
    byId("state").textContent = "";
    return;
  }
  chosen = null;
  byId("replies").scrollIntoView({block: "nearest"});
  const none = element("p", "None yet.", "dim");
  none.id = "heading";
  byId("details").replaceChildren(none);
  const bodies = bodiesOf(settings(), byId("prompt").value, byId("system").value);
  const names = Object.keys(bodies);
  const ends = await Promise.allSettled(names.map(name => write(name, bodies[name], signal)));
  const errors = {};
  ends.forEach((end, place) => {
    if (end.status === "rejected" && end.reason.name !== "AbortError") errors[names[place]] = end.reason;
  });
  if (Object.keys(errors).length) explain(errors);
  else byId("unlock").hidden = true;
  const how = signal.aborted ? "Stopped." : Object.keys(errors).length ? "Ended by an error." : "Done.";
  byId("state").textContent =
    `${how} Base: ${replies.base.summary}. Steered: ${replies.steered.summary}.`;
  const first = ["#steered .s", "#steered .j"].map(kind => document.querySelector(kind)).find(Boolean);
  if (first && !chosen) choose(first);
}

// ---------------------------------------------------------------------------------------------- tokens

function choose(node) {
  if (chosen) {
    chosen.classList.remove("on");
    chosen.removeAttribute("aria-describedby");
  }
  chosen = node;
  node.classList.add("on");
  node.setAttribute("aria-describedby", "heading");
  const name = node.closest("article").id;
  showToken(byId("details"), replies[name].tokens[node.dataset.t], NAMES[name]);
}

function neighbour(node, step, junctions) {
  const all = [...node.closest("article").querySelectorAll(junctions ? ".t.j" : ".t")];
  const here = Number(node.dataset.t);
  return step > 0
    ? all.find(other => Number(other.dataset.t) > here)
    : all.findLast(other => Number(other.dataset.t) < here);
}

const tokenAt = event => event.target.closest?.("article .t");
const STEPS = {ArrowRight: [1, false], ArrowLeft: [-1, false], ArrowDown: [1, true], ArrowUp: [-1, true]};

function listenToTokens() {
  const area = byId("replies");
  area.addEventListener("pointerover", event => {
    const node = event.pointerType === "mouse" && tokenAt(event);
    if (node && node !== chosen) choose(node);
  });
  area.addEventListener("focusin", event => {
    const node = tokenAt(event);
    if (!node) return;
    // The tab key comes back to where one was: one stop a reply.
    for (const other of node.closest("article").querySelectorAll('.t[tabindex="0"]')) other.tabIndex = -1;
    node.tabIndex = 0;
    choose(node);
  });
  area.addEventListener("click", event => tokenAt(event)?.focus());
  area.addEventListener("keydown", event => {
    const step = STEPS[event.key];
    const node = tokenAt(event);
    if (!step || !node || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const next = neighbour(node, ...step);
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
}

// ---------------------------------------------------------------------------------------------- the start

function listen() {
  byId("ask").addEventListener("submit", event => {
    event.preventDefault();
    generate();
  });
  document.addEventListener("keydown", event => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    generate();
  });
  byId("stop").addEventListener("click", () => running?.abort());
  byId("model").addEventListener("change", () => {
    for (const name of ["threshold", "beta"]) controls[name].set(null);
    usePreset();
    keepSettings();
  });
  byId("unlock").addEventListener("submit", event => {
    event.preventDefault();
    const given = byId("key").value.trim();
    // A header holds no other characters, and no key has them.
    if (!/^[\x21-\x7e]+$/.test(given)) {
      complain(["A key is made of letters, digits and signs, without spaces. Enter it again."]);
      return;
    }
    keepKey(given);
    byId("key").value = "";
    connect();
  });
  byId("forget").addEventListener("click", () => {
    keepKey("");
    byId("key").value = "";
    complain(["The key is forgotten."]);
  });
  byId("fold").addEventListener("click", () => {
    const details = byId("details");
    details.hidden = !details.hidden;
    document.body.classList.toggle("folded", details.hidden);
    byId("fold").setAttribute("aria-expanded", String(!details.hidden));
    byId("fold").textContent = details.hidden ? "show token" : "hide";
  });
  addEventListener("hashchange", useHash);
  listenToTokens();
}

for (const name of Object.keys(NUMBERS)) {
  const parts = {box: byId(name), slider: byId(`${name}-slider`), note: byId(`${name}-note`)};
  controls[name] = new Control(name, parts, keepSettings);
}
// On a small screen the settings would push the replies out of it; a line says them.
if (matchMedia("(max-width: 40rem)").matches) byId("settings").open = false;
listen();
useHash();
await connect();
