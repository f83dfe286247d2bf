// A browser without a screen: follows redirects, keeps cookies as browsers do, and submits the forms of a page.

import { once } from "node:events";
import { request } from "node:http";
import { text } from "node:stream/consumers";

const MAX_REDIRECTS = 20;
const NAVIGATION = { accept: "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" };
const FORM = { "content-type": "application/x-www-form-urlencoded" };

export class Browser {
  #cookies = [];

  /** Gives the page at the end of the redirects, or the first answer where `follow` is false. */
  async open(url, { follow = true, method = "GET", headers = {}, body } = {}) {
    for (let hops = 0; hops <= MAX_REDIRECTS; hops += 1) {
      const answer = await send(url, {
        method,
        body,
        headers: { ...NAVIGATION, ...headers, ...this.#cookieHeader(url) },
      });
      this.#take(url, answer);
      if (!follow || !answer.location) return answer;
      url = new URL(answer.location, url);
      method = "GET";
      body = undefined;
    }
    throw new Error(`more than ${MAX_REDIRECTS} redirects`);
  }

  /** Submits the form whose action ends with `action`. */
  async submit(page, action, fields = {}, options = {}) {
    const form = forms(page).find((candidate) => new URL(candidate.action).pathname.endsWith(action));
    if (!form) throw new Error(`no form for \`${action}\` on ${page.url}`);
    return this.open(form.action, {
      method: "POST",
      body: new URLSearchParams({ ...form.fields, ...fields }).toString(),
      ...options,
      headers: { ...FORM, origin: new URL(page.url).origin, ...options.headers },
    });
  }

  cookie(url, name) {
    return this.#matching(url).find((cookie) => cookie.name === name)?.value;
  }

  #cookieHeader(url) {
    const pairs = this.#matching(url).map(({ name, value }) => `${name}=${value}`);
    return pairs.length ? { cookie: pairs.join("; ") } : {};
  }

  #matching(url) {
    const { hostname, pathname } = new URL(url);
    return this.#cookies.filter(({ host, path }) => host === hostname
      && (pathname === path || pathname.startsWith(path.endsWith("/") ? path : `${path}/`)));
  }

  #take(url, { headers }) {
    const host = new URL(url).hostname;
    for (const line of headers["set-cookie"] ?? []) {
      const [pair, ...attributes] = line.split(/; */);
      const [name, value] = split(pair);
      const { path = "/", expires, "max-age": maxAge } = Object.fromEntries(
        attributes.map(split).map(([key, setting]) => [key.toLowerCase(), setting]),
      );
      const same = (known) => known.host === host && known.name === name && known.path === path;
      this.#cookies = this.#cookies.filter((known) => !same(known));
      const ended = maxAge <= 0 || Date.parse(expires) <= Date.now();
      if (!ended) this.#cookies.push({ host, name, value, path });
    }
  }
}

/** Not by `fetch`, which says of each request that it is no navigation. */
async function send(url, { method, headers, body = "" }) {
  const length = { "content-length": Buffer.byteLength(body) };
  const outgoing = request(url, { method, headers: { ...headers, ...length }, agent: false });
  outgoing.end(body);
  const [incoming] = await once(outgoing, "response");
  return {
    url: String(url),
    status: incoming.statusCode,
    headers: incoming.headers,
    location: incoming.headers.location,
    text: await text(incoming),
  };
}

/** The forms of a page, with the values of their hidden fields. */
function forms(page) {
  return [...page.text.matchAll(/<form\b([^>]*)>(.*?)<\/form>/gs)].map(([, tag, inner]) => ({
    action: new URL(attributeOf(tag, "action"), page.url).href,
    fields: Object.fromEntries([...inner.matchAll(/<input\b[^>]*type="hidden"[^>]*>/g)]
      .map(([input]) => [attributeOf(input, "name"), attributeOf(input, "value")])),
  }));
}

const attributeOf = (tag, name) => tag.match(new RegExp(`\\b${name}="([^"]*)"`))?.[1];

const split = (pair) => pair.split(/=(.*)/s, 2);
