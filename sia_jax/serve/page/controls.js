// A number of the page: a field, a slider and a line of words that say the same.

import {NUMBERS} from "./settings.js";
import {element} from "./shown.js";

export class Control {
  #name;
  #box;
  #slider;
  #note;
  #preset = null;
  #changed;
  #wrong = false;

  /** Its name and its value, the model's own too: "threshold 0.4". */
  text = "";

  /** name: of NUMBERS; box, slider, note: its elements; changed: called when the user has changed it. */
  constructor(name, {box, slider, note}, changed) {
    this.#name = name;
    [this.#box, this.#slider, this.#note, this.#changed] = [box, slider, note, changed];
    this.value = NUMBERS[name].start;
    box.addEventListener("input", () => this.#typed());
    slider.addEventListener("input", () => this.#slid());
  }

  /** Whether the field holds what can be sent. */
  get valid() {
    return !this.#wrong;
  }

  /** Take a value: null is the model's own. */
  set(value) {
    this.value = value;
    this.#box.value = value === null ? "" : NUMBERS[this.#name].write(value);
    this.#tell();
  }

  /** What the model has, null if that is not known. */
  preset(value) {
    this.#preset = value;
    this.#tell();
  }

  focus() {
    this.#box.focus();
  }

  #typed() {
    const said = this.#box.value.trim();
    try {
      const {read, start} = NUMBERS[this.#name];
      if (said === "" && start !== null) throw new Error("a number goes here");
      this.value = said === "" ? null : read(said);
      this.#tell();
    } catch (error) {
      this.#wrong = true;
      this.#box.setAttribute("aria-invalid", "true");
      this.#note.textContent = error.message;
      this.text = `${NUMBERS[this.#name].called} unreadable`;
    }
    this.#changed();
  }

  #slid() {
    this.set(NUMBERS[this.#name].scale.value(Number(this.#slider.value)));
    this.#changed();
  }

  #tell() {
    const {means, scale, write, start} = NUMBERS[this.#name];
    const value = this.value ?? this.#preset;
    const number = value === null ? "" : write(value);
    const own = this.value === null ? "the model’s own" : "";
    const words = [own, value === null ? "" : means(value)].filter(Boolean).join(": ");
    if (start === null) this.#box.placeholder = this.#preset === null ? "model’s" : write(this.#preset);
    this.#wrong = false;
    this.#box.removeAttribute("aria-invalid");
    this.#note.textContent = words;
    if (value !== null) this.#slider.value = String(scale.place(value));
    this.#slider.setAttribute("aria-valuetext", number ? `${number}, ${words}` : words);
    this.text = `${NUMBERS[this.#name].called} ${number || own}`;
  }
}

/** Fill the list of models, and choose one: the one asked for, or the first that steers. */
export function listModels(select, models, wanted) {
  select.replaceChildren(...models.map(model => {
    const option = element("option", model.label);
    option.value = model.id;
    return option;
  }));
  const ids = models.map(model => model.id);
  select.value = ids.includes(wanted) ? wanted : (ids.find(id => id.endsWith("-sia")) ?? ids[0] ?? "");
}
