// A program on the gateway that keeps its readings in CBDDC, for Node.js 18 or later, without packages.
//
//     node readings.mjs [http://127.0.0.1:5080]
//
// It writes readings, counts them in a document that others may change too, loads many at once, reads them back page by
// page, and follows what changes as it happens, also what changes on other devices. CBDDC_TOKEN holds the token where the
// node asks for one.

/** An error of the node. Programs match on `code` and `kind`; the message is for people. */
class Failed extends Error {
  constructor(problem) {
    super(`${problem.code} ${problem.kind ?? ""}: ${problem.detail}`);
    Object.assign(this, { status: problem.status, code: problem.code, kind: problem.kind });
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

class Node {
  constructor(address, token) {
    this.address = address.replace(/\/$/, "");
    this.token = token;
  }

  /** One request; again where the node says that nothing was begun (429, 503) or that repeating is safe (504). */
  async ask(method, path, { body, headers = {}, signal } = {}) {
    if (this.token) headers = { ...headers, Authorization: `Bearer ${this.token}` };
    for (let attempt = 1; ; attempt++) {
      const answer = await fetch(this.address + path, { method, body, headers, signal });
      if (answer.ok) return answer;
      const text = await answer.text();
      if ([429, 503, 504].includes(answer.status) && attempt < 5) {
        await pause(1000 * Number(answer.headers.get("retry-after") ?? attempt));
        continue;
      }
      throw new Failed(JSON.parse(text));
    }
  }

  /** Everything in a key is allowed, a / too, as long as it is percent-encoded. */
  path(collection, key) {
    const path = `/v1/collections/${encodeURIComponent(collection)}/documents`;
    return key === undefined ? path : `${path}/${encodeURIComponent(key)}`;
  }

  /** True once it is on disk; false where it waits in the offline queue, and would not survive a power cut. */
  async put(collection, key, value, headers = {}) {
    const answer = await this.ask("PUT", this.path(collection, key), { body: JSON.stringify(value), headers });
    return answer.status !== 202;
  }

  /** The document and its version; nothing where there is none. */
  async get(collection, key) {
    try {
      const answer = await this.ask("GET", this.path(collection, key));
      return { value: await answer.json(), version: answer.headers.get("etag") };
    } catch (failed) {
      if (failed.kind === "DocumentNotFound") return {};
      throw failed;
    }
  }

  /** Reads, changes and writes, again where somebody else on this device was faster. Between devices the last write wins:
   *  what two of them must both count is better kept in one document for each. */
  async change(collection, key, how) {
    for (;;) {
      const { value, version } = await this.get(collection, key);
      try {
        return await this.put(collection, key, how(value), version ? { "If-Match": version } : { "If-None-Match": "*" });
      } catch (failed) {
        if (failed.kind !== "Concurrency") throw failed;
      }
    }
  }

  /** Many at once. Answers how many were stored, and which lines were not and why. */
  async load(collection, documents) {
    const body = documents.map(([key, value]) => `${JSON.stringify({ key, value })}\n`).join("");
    const headers = { "Content-Type": "application/x-ndjson" };
    return (await this.ask("POST", this.path(collection), { body, headers })).json();
  }

  /** All documents whose keys begin so, in the order of their keys, a page at a time. */
  async *list(collection, prefix = "") {
    for (let after = ""; after !== null; ) {
      const query = new URLSearchParams({ prefix, after, limit: 500 });
      const page = await (await this.ask("GET", `${this.path(collection)}?${query}`)).json();
      yield* page.documents;
      after = page.next;
    }
  }

  /** Each change as it happens, with the token to go on behind it, for as long as it is read. */
  async *changes(since, collection) {
    for (;;) {
      const stop = new AbortController();
      const query = new URLSearchParams({ since, collection });
      const headers = { Accept: "text/event-stream" };
      const answer = await this.ask("GET", `/v1/changes?${query}`, { headers, signal: stop.signal });
      let text = "";
      try {
        for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
          const events = (text + piece).split("\n\n");
          text = events.pop();
          for (const event of events) {
            const lines = event.split("\n");
            const field = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
            since = field("id")[0] ?? since;
            const data = field("data").join("\n");
            if (field("event")[0] === "error") throw new Failed(JSON.parse(data));
            if (data) yield { ...JSON.parse(data), token: since };
          }
        }
      } finally {
        stop.abort();
      }
      // The node has stopped or the connection broke: on from the last token.
      await pause(1000);
    }
  }
}

const node = new Node(process.argv[2] ?? "http://127.0.0.1:5080", process.env.CBDDC_TOKEN);
// From here on: kept in a file, the token would let the next run of this program go on.
const { next: token } = await (await node.ask("GET", "/v1/changes?since=now&timeout=0s")).json();

console.log((await node.put("readings", "2026/01/15 10:20", { celsius: 21.5 })) ? "on disk" : "queued");
const hours = Array.from({ length: 24 }, (_, hour) => [`2026/01/15 ${String(hour).padStart(2, "0")}:00`, { celsius: hour / 2 }]);
const { successful, errors } = await node.load("readings", hours);
console.log(`${successful} stored, ${errors.length} not`);
await node.change("counters", "readings", (count = 0) => count + 25);

const { value } = await node.get("readings", "2026/01/15 10:20");
console.log(`at 10:20 it was ${value.celsius} degrees`);
let warmest;
for await (const document of node.list("readings", "2026/01/15")) {
  if (!warmest || document.value.celsius > warmest.value.celsius) warmest = document;
}
console.log(`the warmest was ${warmest.key}`);
try {
  await node.put("readings", "2026/01/15 10:20", {}, { "If-None-Match": "*" });
} catch (failed) {
  console.log(`not again: ${failed.kind}`);
}

const seen = new Map();
for await (const change of node.changes(token, "readings")) {
  seen.set(change.key, change.deleted ? undefined : change.value);
  if (seen.size === 25) break;
}
console.log(`${seen.size} changes seen`);
