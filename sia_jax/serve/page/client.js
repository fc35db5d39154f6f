// What is asked of the server, and what is said when it refuses.

import {eventsOf} from "./events.js";
import {shown} from "./shown.js";

const LONGEST_MESSAGE = 600; // characters of a server's message that are shown

/** An answer that is none: what happened, and what to do about it. */
export class Trouble extends Error {
  constructor(message, {status = 0, remedy = ""} = {}) {
    super(message);
    this.status = status;
    this.remedy = remedy;
  }
}

function headersOf(key, body) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Authorization"] = `Bearer ${key}`;
  return headers;
}

/** A server's own message, on its way to the page. */
function told(error) {
  const message = typeof error?.message === "string" ? error.message : "it did not say why";
  const param = typeof error?.param === "string" ? ` (${error.param})` : "";
  const text = shown(message + param);
  return text.length > LONGEST_MESSAGE ? text.slice(0, LONGEST_MESSAGE) + " … (cut here)" : text;
}

function remedyOf(status, retryAfter) {
  const wait = /^\d{1,6}$/.test(retryAfter ?? "") ? `in ${+retryAfter} s` : "in a little while";
  if (status === 401) return "Enter a key of this server below.";
  if (status === 403) return "This key may not do that: use another.";
  if (status === 404) return "Reload the page, and choose a model that the server has.";
  if (status === 413) return "Shorten the prompt.";
  if (status === 429 || status === 503) return `The server has no room now: try again ${wait}.`;
  if (status >= 500) return "Try again; if it stays so, look at the server's log.";
  return "Change the request, and generate again.";
}

/** An answer of status 200.

Throws Trouble: the server refuses, or is not there. An AbortError passes through. */
export async function ask(path, {key = "", body, signal} = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: headersOf(key, body),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The server cannot be reached.", {remedy: "See that it runs, and try again."});
  }
  if (answer.ok) return answer;
  let said = null;
  try {
    said = (await answer.json()).error;
  } catch (error) {
    if (error.name === "AbortError") throw error; // anything else: no JSON; the status has to do
  }
  throw new Trouble(`The server refuses (${answer.status}): ${told(said)}`, {
    status: answer.status,
    remedy: remedyOf(answer.status, answer.headers.get("Retry-After")),
  });
}

/** The models that the server has: [{id, sia}], sia the preset's numbers as far as they are told. */
export async function modelsOf(key) {
  const answer = await ask("v1/models", {key});
  let listed;
  try {
    listed = (await answer.json()).data;
  } catch {
    listed = null;
  }
  if (!Array.isArray(listed)) {
    const remedy = "See that this is a server of sia_jax.";
    throw new Trouble("The list of models cannot be read.", {remedy});
  }
  return listed
    .filter(model => typeof model?.id === "string" && model.id !== "")
    .map(model => ({id: model.id, sia: model.sia ?? {}}));
}

/** The chunks of a reply, as they come, up to the end that the server marks.

Throws Trouble: an error in mid-stream, what is no JSON, or an end without its mark. */
export async function* chunksOf(body, {key, signal}) {
  const answer = await ask("v1/chat/completions", {key, body, signal});
  const again = {remedy: "What was said until then stands below. Generate again."};
  try {
    for await (const data of eventsOf(answer.body)) {
      if (data === "[DONE]") return;
      let chunk;
      try {
        chunk = JSON.parse(data);
      } catch {
        throw new Trouble("The server sent something that is no JSON.", again);
      }
      if (chunk === null || typeof chunk !== "object") {
        throw new Trouble("The server sent something that is no chunk of a reply.", again);
      }
      if (chunk.error) throw new Trouble(`The server gave up: ${told(chunk.error)}`, again);
      yield chunk;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Trouble) throw error;
    throw new Trouble(`The connection broke: ${shown(String(error.message))}`, again);
  }
  throw new Trouble("The connection ended before the reply did.", again);
}
