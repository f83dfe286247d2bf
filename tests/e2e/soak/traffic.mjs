// Who asks: people who keep coming back, and a crowd that sends anything. Every answer is checked on the spot.

import { setTimeout as pause } from "node:timers/promises";

import { NAVIGATION } from "../support/gate.mjs";
import { connect } from "../support/http.mjs";
import { assertKeepsSecrets } from "../support/secrets.mjs";
import { eventually } from "../support/wait.mjs";
import { COOKIE, Crowd, KIND_NAMES } from "./crowd.mjs";

const LANES = 16;
const PEOPLE_WITH_MFA = 8;
const PEOPLE_WITHOUT = 3;

/** A person's page is there, and a moment later they want another. */
const READING_TIME = 10;

/** After so many requests, a person comes back by another connection: to another worker, by chance. */
const VISIT = 100;

const MAX_FAILURES = 8;

export class Traffic {
  #site;
  #left = 0;
  #visits = true;
  #people = [];

  /** What was not as it must be. */
  failures = [];

  /** Answers of 503 for which there was a cause: when the last of them came, by the monotonic clock. */
  last503 = 0;

  /** By kind of request: how many were answered as expected, and how many with a 503 for which there was a cause. */
  tally = new Map(
    [...KIND_NAMES, "person with MFA", "person without MFA"].map((kind) => [kind, { answered: 0, unavailable: 0 }]),
  );

  /** Milliseconds that the crowd's requests and the people's took, of this phase. */
  latencies = { crowd: [], people: [] };

  /** For how long a 503 has a cause: until this time, by the monotonic clock. */
  excusedUntil = 0;

  /** How many requests under way a crash cuts off, while there is one. */
  crash = undefined;

  phase = "";

  constructor(site, random) {
    this.#site = site;
    this.crowd = new Crowd(random, site);
  }

  /** People begin to visit. */
  open() {
    for (let at = 0; at < PEOPLE_WITH_MFA + PEOPLE_WITHOUT; at += 1) {
      this.#people.push({ hasMfa: at < PEOPLE_WITH_MFA, pleased: 0 });
    }
    this.renewTokens();
    for (const person of this.#people) person.gone = this.#visit(person);
  }

  /** People get new tokens, and nobody uses the old ones any more. */
  renewTokens() {
    this.crowd.recent = [];
    for (const person of this.#people) person.token = person.hasMfa ? this.crowd.token() : this.crowd.weak();
  }

  /** The crowd sends so many requests. */
  async flood(count) {
    this.#left = count;
    await Promise.all(Array.from({ length: LANES }, () => this.#lane()));
  }

  /** Every person is answered as they should be, a few times in a row from now on. */
  async allPleased(milliseconds) {
    this.#people.forEach((person) => (person.pleased = 0));
    await eventually(milliseconds, "everybody gets their page", () => this.#people.every(({ pleased }) => pleased >= 3));
  }

  /** Every person is turned away with a 503. */
  async allUnavailable(milliseconds) {
    this.#people.forEach((person) => (person.turnedAway = false));
    await eventually(milliseconds, "nobody gets a page", () => this.#people.every(({ turnedAway }) => turnedAway));
  }

  async close() {
    this.#visits = false;
    this.#left = 0;
    await Promise.all(this.#people.map(({ gone }) => gone));
  }

  async #visit(person) {
    let at = 0;
    const way = new Way(this.#site);
    while (this.#visits) {
      const { text, user } = person.token;
      const request = {
        kind: person.hasMfa ? "person with MFA" : "person without MFA",
        path: `/salary/${user}`,
        browser: true,
        headers: [...NAVIGATION, ["cookie", `${COOKIE}=${text}`]],
        expected: person.hasMfa ? { user } : { reason: "amr_insufficient" },
      };
      const answered = await this.#ask(way, request, this.latencies.people);
      if (answered === "expected") person.pleased += 1;
      else person.pleased = 0;
      if (answered === "unavailable") person.turnedAway = true;
      at += 1;
      if (at % VISIT === 0) way.close();
      await pause(READING_TIME);
    }
    way.close();
  }

  async #lane() {
    const way = new Way(this.#site);
    while (this.#left > 0) {
      this.#left -= 1;
      const request = this.crowd.next();
      if (request.leaves) await this.#leave(way, request);
      else await this.#ask(way, request, this.latencies.crowd);
    }
    way.close();
  }

  /** Sends a request, or part of it, and resets the connection. */
  async #leave(way, { kind, path, headers }) {
    const head = [`GET ${path} HTTP/1.1`, "host: app.example.com", ...headers.map((field) => field.join(": "))].join("\r\n");
    const part = this.crowd.random();
    const connection = await way.connection();
    connection.write(Buffer.from(part < 0.3 ? head.slice(0, head.length * part) : `${head}\r\n\r\n`, "latin1"));
    await pause(this.crowd.random() * 4);
    connection.reset();
    this.tally.get(kind).answered += 1;
  }

  async #ask(way, request, latencies) {
    const started = performance.now();
    const figures = this.tally.get(request.kind);
    let problem;
    try {
      const connection = await way.connection();
      const answer = await connection.request(request);
      latencies.push(performance.now() - started);
      if (answer.header("connection") === "close") way.close();
      // The gate says when to come back; Envoy, when the VM has crashed, does not.
      const isTold = answer.header("retry-after") !== undefined || this.crash;
      if (answer.status === 503 && isTold && started < this.excusedUntil) {
        this.last503 = Math.max(this.last503, performance.now());
        figures.unavailable += 1;
        return "unavailable";
      }
      problem = wrong(request, answer, this.#site.issuer);
    } catch (error) {
      way.close();
      if (this.crash && started < this.excusedUntil) {
        this.crash.cutOff += 1;
        return "unavailable";
      }
      // Envoy need not read on what is too long for it before it closes.
      if (request.expected.status !== 431) problem = error.message;
    }
    if (problem === undefined) {
      figures.answered += 1;
      return "expected";
    }
    if (this.failures.length < MAX_FAILURES) this.failures.push(`${this.phase}: ${request.kind}: ${problem}`);
    return "wrong";
  }
}

/** A connection to the gate that is there when it is needed, as often as Envoy ends it. */
class Way {
  #site;
  #connection;

  constructor(site) {
    this.#site = site;
  }

  async connection() {
    if (!this.#connection?.open) this.#connection = await connect(this.#site.port);
    return this.#connection;
  }

  close() {
    this.#connection?.close();
    this.#connection = undefined;
  }
}

/** What is wrong with an answer; undefined: it is as expected. */
function wrong({ path, browser, expected: { user, reason, status = browser ? 302 : 401 } }, answer, issuer) {
  if (user !== undefined) {
    const isIt = answer.status === 200 && answer.json().path === path && answer.json().users.join() === user;
    return isIt ? undefined : `${answer.status} in place of the page: ${words(answer)}`;
  }
  const told = `${answer.status} in place of ${status} ${reason}: ${words(answer)}`;
  if (answer.status !== status) return told;
  if (reason === undefined) return undefined;
  assertKeepsSecrets(answer.text(), "an answer");
  if (status === 302) return answer.header("location").startsWith(`${issuer}authorize?`) ? undefined : "302 to elsewhere";
  return browser || answer.json().reason === reason ? undefined : told;
}

/** What an answer says, without the page around it. */
function words(answer) {
  return answer.text().replace(/<style>.*<\/style>|<[^>]*>|\s+/gs, " ").slice(0, 120);
}
