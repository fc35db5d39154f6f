// One reply as it comes: its tokens, its figures, and how it ended.

import {fill} from "./shown.js";

const number = x => (typeof x === "number" && Number.isFinite(x) ? x : null);
const text = x => (typeof x === "string" ? x : "");
const count = x => (Number.isSafeInteger(x) && x >= 0 ? x : null);

function candidateOf(raw) {
  return {
    id: number(raw?.id),
    text: text(raw?.text),
    policy: number(raw?.policy_logprob),
    value: number(raw?.value),
    drawn: number(raw?.logprob),
  };
}

/** A token of a trace, as the server tells it, with nothing in it but what the page reads. */
function tokenOf(raw, place) {
  const candidates = Array.isArray(raw?.candidates) ? raw.candidates.map(candidateOf) : [];
  const id = number(raw?.id);
  const shifted = raw?.shifted === true;
  // Where nothing was shifted, the policy alone would have said the same.
  const own = number(raw?.policy_choice) ?? (shifted ? null : id);
  return {
    place,
    id,
    own,
    shifted,
    text: text(raw?.text),
    entropy: number(raw?.entropy),
    junction: raw?.junction === true,
    policy: number(raw?.policy_logprob),
    drawn: number(raw?.logprob),
    contenders: count(raw?.contenders),
    read: count(raw?.values_read),
    candidates,
  };
}

const ENDS = {
  stop: "ended by itself",
  length: "ended at the most tokens asked for",
  abort: "ended early: it took too long, or the server stops",
};

export class Reply {
  #sum;

  /** article: its element. */
  constructor(article) {
    this.article = article;
    this.body = article.querySelector(".text");
    this.clear();
  }

  clear() {
    this.tokens = [];
    this.body.replaceChildren();
    this.said = ""; // the text that the chunks carry beside the trace
    this.usage = null;
    this.reason = null;
    this.first = this.last = null; // seconds of the first and the last piece
    this.firstTokens = 0;
    this.#sum = {steered: 0, shifted: 0, entropy: 0, entropies: 0};
    this.highest = 0;
    this.end("");
    this.figure();
  }

  /** The reply is being written. */
  begin() {
    this.clear();
    this.article.setAttribute("aria-busy", "true");
  }

  /** A chunk that came at some time, in seconds. */
  take(chunk, now) {
    const choice = Array.isArray(chunk.choices) ? chunk.choices[0] : undefined;
    if (chunk.usage) this.usage = chunk.usage;
    if (!choice) return;
    if (typeof choice.finish_reason === "string") this.reason = choice.finish_reason;
    const piece = text(choice.delta?.content);
    const trace = Array.isArray(choice.sia?.trace) ? choice.sia.trace : [];
    this.said += piece;
    if (trace.length) this.#add(trace, now);
    else if (!this.tokens.length) fill(this.body, piece); // a server that traces nothing
  }

  #add(trace, now) {
    if (!this.tokens.length) this.body.replaceChildren();
    const nodes = document.createDocumentFragment();
    for (const raw of trace) {
      const token = tokenOf(raw, this.tokens.length);
      this.tokens.push(token);
      nodes.append(this.#span(token));
      this.#sum.steered += token.junction;
      this.#sum.shifted += token.shifted;
      if (token.entropy !== null) {
        this.#sum.entropy += token.entropy;
        this.#sum.entropies += 1;
        this.highest = Math.max(this.highest, token.entropy);
      }
    }
    this.body.append(nodes);
    if (this.first === null) {
      this.first = now;
      this.firstTokens = this.tokens.length;
    }
    this.last = now;
  }

  #span(token) {
    const node = document.createElement("span");
    node.className = "t" + (token.junction ? " j" : "") + (token.shifted ? " s" : "");
    // The end of a line has no shape to shade: the style gives it one.
    if (/^\s*\n/.test(token.text)) node.className += " n";
    node.style.setProperty("--h", Math.max(token.entropy ?? 0, 0).toFixed(4));
    node.dataset.t = token.place;
    // One stop of the tab key a reply; the arrow keys go on from there.
    node.tabIndex = token.place === 0 ? 0 : -1;
    return fill(node, token.text);
  }

  /** What the figures are so far; at the end the server's own count. */
  get figures() {
    const sia = this.usage?.sia ?? {};
    const tokens = count(this.usage?.completion_tokens) ?? this.tokens.length;
    const mean = this.#sum.entropies ? this.#sum.entropy / this.#sum.entropies : null;
    const seconds = this.last - this.first;
    return {
      tokens,
      steered: count(sia.steered) ?? this.#sum.steered,
      shifted: count(sia.shifted) ?? this.#sum.shifted,
      speed: seconds > 0 ? (this.tokens.length - this.firstTokens) / seconds : null,
      entropy: number(sia.mean_entropy) ?? mean,
    };
  }

  /** Write the figures. */
  figure() {
    const {tokens, steered, shifted, speed, entropy} = this.figures;
    const none = tokens === 0;
    const said = {
      tokens: String(tokens),
      steered: none ? "–" : `${((100 * steered) / tokens).toFixed(1)}%`,
      shifted: none ? "–" : String(shifted),
      speed: speed === null ? "–" : speed.toFixed(speed < 100 ? 1 : 0),
      entropy: entropy === null ? "–" : `${entropy.toFixed(2)} nats`,
    };
    for (const [name, figure] of Object.entries(said)) {
      this.article.querySelector(`[data-figure="${name}"]`).textContent = none ? "–" : figure;
    }
  }

  /** The reply is over: how, in words; "" before it began, undefined: as the server said. */
  end(how) {
    this.article.setAttribute("aria-busy", "false");
    this.article.querySelector(".end").textContent = how ?? this.#ending();
    this.figure();
  }

  #ending() {
    const words = ENDS[this.reason] ?? "ended without a reason";
    if (!this.tokens.length) return this.said === "" ? words : `${words}; the server sent no trace of it`;
    const traced = this.tokens.map(token => token.text).join("");
    return traced === this.said ? words : `${words}; its text and its trace differ, the trace is shown`;
  }

  /** In a sentence, for who does not see the figures. */
  get summary() {
    const {tokens, steered, shifted} = this.figures;
    return `${tokens} tokens, ${steered} steered, ${shifted} shifted`;
  }
}
