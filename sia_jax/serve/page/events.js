// Server-sent events, as the HTML standard reads them: from bytes cut anywhere to the data of each event.

const MOST = 1 << 22; // characters of one event: more is no reply, and would fill the memory

export class EventReader {
  #decoder = new TextDecoder("utf-8"); // which keeps the bytes of half a character until the rest comes
  #line = "";
  #data = [];
  #size = 0;

  /** The data of the events that some more bytes complete. */
  push(bytes) {
    return this.#read(this.#decoder.decode(bytes, {stream: true}), false);
  }

  /** Of those that the end completes; an event without its blank line is none. */
  end() {
    return this.#read(this.#decoder.decode(), true);
  }

  #read(text, last) {
    const found = [];
    // A CR at the end may be half of a CRLF: it waits for what comes.
    const lines = (this.#line + text).split(last ? /\r\n|\n|\r/ : /\r\n|\n|\r(?!$)/);
    this.#line = lines.pop();
    for (const line of lines) {
      if (line !== "") this.#take(line);
      else if (this.#data.length) {
        found.push(this.#data.join("\n"));
        this.#data = [];
        this.#size = 0;
      }
    }
    if (this.#size + this.#line.length > MOST) throw new Error(`an event has over ${MOST} characters`);
    return found;
  }

  /** A line: "data: x" or "data:x" is data; comments (": x") and other fields tell nothing here. */
  #take(line) {
    const colon = line.indexOf(":");
    if ((colon < 0 ? line : line.slice(0, colon)) !== "data") return;
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    this.#data.push(value);
    this.#size += value.length + 1;
    if (this.#size > MOST) throw new Error(`an event has over ${MOST} characters`);
  }
}

/** The data of the events of a stream of bytes, as they come. */
export async function* eventsOf(stream) {
  const reader = stream.getReader();
  const events = new EventReader();
  try {
    for (;;) {
      const {done, value} = await reader.read();
      yield* done ? events.end() : events.push(value);
      if (done) return;
    }
  } finally {
    // Whoever stops listening lets go of the connection, and the server of the request.
    reader.cancel().catch(() => {});
  }
}
