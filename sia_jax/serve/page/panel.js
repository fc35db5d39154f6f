// The panel of one token: what stood to choice there, how likely under the policy, of what value, how tilted.

import {element, shownLine} from "./shown.js";

function percent(logprob) {
  if (logprob === null) return "–";
  const share = Math.exp(logprob);
  if (share < 0.0005) return "<0.1%";
  return share >= 0.0995 ? `${(100 * share).toFixed(0)}%` : `${(100 * share).toFixed(1)}%`;
}

const signed = x => (x === null ? "–" : (x >= 0 ? "+" : "−") + Math.abs(x).toFixed(2));

function own(token) {
  if (token.own === token.id && token.own !== null) return "the same";
  const found = token.candidates.find(candidate => candidate.id === token.own && token.own !== null);
  return found ? shownLine(found.text) : "another token";
}

function heading(token, reply) {
  const parts = [`${reply}, token ${token.place + 1}`];
  if (token.entropy !== null) parts.push(`entropy ${token.entropy.toFixed(2)} nats`);
  parts.push(token.junction ? "junction" : "not steered");
  if (token.junction && token.contenders !== null) parts.push(`${token.contenders} contend`);
  if (token.junction && token.read === 0) parts.push("decided without a value");
  if (!token.candidates.length && token.policy !== null) parts.push(`policy ${percent(token.policy)}`);
  if (token.junction) parts.push(`the policy alone: ${own(token)}`);
  const line = element("p");
  line.id = "heading";
  line.append(element("b", shownLine(token.text)));
  parts.forEach((part, place) => line.append(place ? " · " : " ", element("span", part, "fact")));
  return line;
}

function bars(candidate) {
  const cell = element("td", undefined, "bar");
  for (const logprob of [candidate.policy, candidate.drawn]) {
    const line = element("i");
    const share = logprob === null ? 0 : Math.min(Math.exp(logprob), 1);
    line.style.width = `${100 * share}%`;
    cell.append(line);
  }
  return cell;
}

function row(candidate, token) {
  const line = element("tr");
  const chosen = candidate.id !== null && candidate.id === token.id;
  const policys = candidate.id !== null && candidate.id === token.own;
  line.className = [chosen ? "chosen" : "", policys ? "own" : ""].join(" ").trim();
  const name = element("th", shownLine(candidate.text) + (chosen ? " ●" : "") + (policys ? " ○" : ""));
  name.scope = "row";
  line.append(
    name,
    element("td", percent(candidate.policy)),
    element("td", signed(candidate.value)),
    element("td", percent(candidate.drawn)),
    bars(candidate),
  );
  return line;
}

function table(token) {
  const whole = element("table");
  const head = element("tr");
  for (const title of ["candidate", "policy", "value", "tilted", ""]) {
    const cell = element(title ? "th" : "td", title, title);
    if (title) cell.scope = "col";
    head.append(cell);
  }
  const top = element("thead");
  top.append(head);
  const body = element("tbody");
  for (const candidate of token.candidates) body.append(row(candidate, token));
  whole.append(top, body);
  return whole;
}

/** Show a token of a reply: `reply` is what the reply is called. */
export function showToken(details, token, reply) {
  const parts = [heading(token, reply)];
  if (token.candidates.length) {
    parts.push(table(token));
    parts.push(element("p", "● chosen · ○ what the policy alone would have said", "dim"));
  } else {
    parts.push(element("p", "Candidates are told at junctions alone.", "dim"));
  }
  details.replaceChildren(...parts);
}
