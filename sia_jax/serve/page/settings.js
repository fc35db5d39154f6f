// The settings of a run: what may stand in a field, where a slider stands for it, and what is sent of it.

const LARGEST_SEED = 2 ** 32 - 1;
const THRESHOLD_END = 4; // nats, at the last place of the slider before "off"
const THRESHOLD_PLACES = 100;
const NUMERAL = /^-?(\d+\.?\d*|\.\d+)(e-?\d+)?$/i;

function real(text, least, most = Infinity) {
  const found = NUMERAL.test(text) ? Number(text) : NaN;
  if (found >= least && found <= most && Number.isFinite(found)) return found;
  const range = most === Infinity ? `from ${least} on` : `from ${least} to ${most}`;
  throw new Error(`a number ${range} goes here, such as 0.5`);
}

function whole(text, least, most) {
  const found = /^\d{1,10}$/.test(text) ? Number(text) : NaN;
  if (found >= least && found <= most) return found;
  throw new Error(`a whole number from ${least} to ${most} goes here`);
}

function threshold(text) {
  if (["off", "inf", "+inf", "infinity"].includes(text.toLowerCase())) return "inf";
  if (text.toLowerCase() === "-inf") return "-inf";
  try {
    return real(text, 0);
  } catch {
    throw new Error("nats from 0 on go here, such as 0.5, or off");
  }
}

const linear = {place: value => value, value: place => place};

// Thresholds of use lie at low entropies, so the slider's places lie closer there:
// nats = end (place / places)^3.
const cubic = {
  place(value) {
    if (value === "inf") return THRESHOLD_PLACES + 1;
    const share = value === "-inf" ? 0 : Math.min(value / THRESHOLD_END, 1);
    return Math.round(THRESHOLD_PLACES * Math.cbrt(share));
  },
  value(place) {
    if (place > THRESHOLD_PLACES) return "inf";
    return Number((THRESHOLD_END * (place / THRESHOLD_PLACES) ** 3).toPrecision(3));
  },
};

/** The numbers: how a text is read, where the slider stands for one, and what it means in words.

`start` is null where the model's own is taken until one is given; `called` is its name in a line of all. */
export const NUMBERS = {
  threshold: {
    called: "threshold",
    start: null,
    read: threshold,
    scale: cubic,
    write: value => (value === "inf" ? "off" : String(value)),
    means(value) {
      if (value === "inf") return "nothing is steered";
      return value === "-inf" || value === 0 ? "every token is steered" : `from ${value} nats on`;
    },
  },
  beta: {
    called: "strength",
    start: null,
    read: text => real(text, 0),
    scale: linear,
    write: String,
    means: value => (value === 0 ? "values change nothing" : "times the value"),
  },
  temperature: {
    called: "temperature",
    start: 1,
    read: text => real(text, 0, 2),
    scale: linear,
    write: String,
    means: value => (value === 0 ? "always the likeliest token" : "tokens are drawn"),
  },
  tokens: {
    called: "tokens",
    start: 160,
    read: text => whole(text, 1, 1_000_000),
    scale: linear,
    write: String,
    means: () => "of each reply",
  },
  seed: {
    called: "seed",
    start: 0,
    read: text => whole(text, 0, LARGEST_SEED),
    scale: linear,
    write: String,
    means: () => "the same seed, the same replies",
  },
};

/** The settings in an address's hash ("#threshold=0.5&seed=3"); what cannot be read is left out. */
export function fromHash(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const found = {model: given.get("model") ?? ""};
  for (const [name, {read, start}] of Object.entries(NUMBERS)) {
    found[name] = start;
    try {
      if (given.has(name)) found[name] = read(given.get(name).trim());
    } catch {
      // A link may come from anybody and from another release: what it cannot say stays as it starts.
    }
  }
  return found;
}

/** The hash of some settings. No prompt: addresses are kept and passed on. */
export function toHash(settings) {
  const said = new URLSearchParams();
  if (settings.model) said.set("model", settings.model);
  for (const [name, {write}] of Object.entries(NUMBERS)) {
    if (settings[name] !== null) said.set(name, write(settings[name]));
  }
  return "#" + said;
}

/** The bodies of the two requests: alike but for the steering. */
export function bodiesOf(settings, prompt, system) {
  const messages = [{role: "user", content: prompt}];
  if (system !== "") messages.unshift({role: "system", content: system});
  const body = sia => ({
    model: settings.model,
    messages,
    temperature: settings.temperature,
    max_tokens: settings.tokens,
    seed: settings.seed,
    stream: true,
    stream_options: {include_usage: true},
    sia: {...sia, trace: true},
  });
  const steering = {};
  for (const name of ["threshold", "beta"]) {
    if (settings[name] !== null) steering[name] = settings[name];
  }
  return {base: body({threshold: "inf"}), steered: body(steering)};
}
