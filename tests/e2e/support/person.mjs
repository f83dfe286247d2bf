// A browser without a screen: it keeps cookies by host, follows redirects and submits forms. The app's own addresses lead
// to the listener that a test says, as if TLS and the name's address were settled before.

import assert from "node:assert/strict";

import { ask, NAVIGATION, REDIRECT_URI } from "./gate.mjs";
import { CookieJar, request } from "./http.mjs";

export const ORIGIN = new URL(REDIRECT_URI).origin;

const MAX_REDIRECTS = 10;

export class Person {
  #jars = new Map();

  constructor(envoy, listener) {
    this.turnsTo(envoy, listener);
  }

  /** From now on, the app's host leads there: to a listener of Envoy, or to what a function answers. */
  turnsTo(envoy, listener) {
    Object.assign(this, { envoy, listener });
  }

  /** The cookies for the app, or for what else has an address. */
  cookies(address = ORIGIN) {
    const { host } = new URL(address);
    if (!this.#jars.has(host)) this.#jars.set(host, new CookieJar());
    return this.#jars.get(host);
  }

  /** The answer to one request, with its `url` and, from a gate, its `reason`. Options: see `Connection.request`. */
  async open(target, { headers = NAVIGATION, ...options } = {}) {
    const { href, origin, host, port, pathname, search } = new URL(target, ORIGIN);
    const jar = this.cookies(href);
    const message = { ...options, host, path: pathname + search, headers: [...headers, ...jar.headers()] };
    const { answer, entry } = origin === ORIGIN
      ? await this.#ask(message)
      : { answer: await request(Number(port), message) };
    jar.take(answer);
    return Object.assign(answer, { url: href, reason: entry?.reason });
  }

  async #ask(message) {
    return typeof this.envoy === "function" ? { answer: await this.envoy(message) } : ask(this.envoy, this.listener, message);
  }

  /** All answers from here along the redirects; the last one is the page. `until` stops at an address, unopened. */
  async visit(target, { until = () => false, ...options } = {}) {
    const answers = [await this.open(target, options)];
    for (;;) {
      const last = answers.at(-1);
      const location = last.header("location");
      if (location === undefined) return answers;
      const next = new URL(location, last.url);
      if (until(next)) return answers;
      assert.ok(answers.length <= MAX_REDIRECTS, `too many redirects: ${answers.map(({ url }) => url)}`);
      answers.push(await this.open(next));
    }
  }

  /** Submits the form of a page, with these fields beside its hidden ones; gives what `visit` does. */
  async submit(page, fields = {}) {
    const { action, fields: hidden } = formOf(page);
    return this.visit(action, {
      method: "POST",
      headers: [...NAVIGATION, ["content-type", "application/x-www-form-urlencoded"]],
      body: new URLSearchParams({ ...hidden, ...fields }).toString(),
    });
  }
}

/** The action and the hidden fields of a page's form. */
export function formOf(page) {
  const text = page.text();
  const inputs = [...text.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)"/g)];
  return {
    action: new URL(plain(/<form[^>]* action="([^"]*)"/.exec(text)[1]), page.url).href,
    fields: Object.fromEntries(inputs.map(([, name, value]) => [name, plain(value)])),
  };
}

function plain(html) {
  const characters = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'" };
  return html.replace(/&(amp|lt|gt|quot|#39);/g, (entity) => characters[entity]);
}
