// form_post: the provider's answer comes as a POST from its own site, and the gate has to read a body. In real Envoy, newest and
// oldest, and in a real browser.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { setImmediate as turn } from "node:timers/promises";
import { after, before, describe, test } from "node:test";

import { chromiumMissing, freePorts, launchChromium } from "./demo-support.mjs";
import { REQUEST_ID, startEnvoy } from "./support/envoy.mjs";
import { ask, assertHealthy, assertKept, discoveringGate, NAVIGATION, REDIRECT_URI } from "./support/gate.mjs";
import { connect, connectH2, requestH2 } from "./support/http.mjs";
import { startOidc } from "./support/oidc.mjs";
import { formOf, ORIGIN, Person } from "./support/person.mjs";
import { startUpstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const MAX_FORM_BYTES = 16 * 1024;
const TIMEOUT = 1_000;
const TICK = 1_000; // how often an idle gate looks at the clock
const KEY = randomBytes(32).toString("base64");
const CLIENT = { id: "post", secret: "s3cret" };
const FORM = ["content-type", "application/x-www-form-urlencoded"];
const CHUNKED = ["transfer-encoding", "chunked"];

describe("form_post", () => {
  let upstream;
  let oidc;
  let browserOrigin;
  const envoys = {};

  before(async () => {
    upstream = await startUpstream();
    // To a browser, 127.0.0.1 and localhost are two sites, and both are trustworthy without TLS.
    const [port] = await freePorts(1);
    browserOrigin = `http://127.0.0.1:${port}`;
    const forBrowser = `${browserOrigin}/callback`;
    oidc = await startOidc({
      redirectUris: [REDIRECT_URI, forBrowser],
      clients: [{ client_id: CLIENT.id, client_secret: CLIENT.secret, token_endpoint_auth_method: "client_secret_post" }],
    });
    const hasty = gate({ provider: { timeout: `${TIMEOUT}ms` } });
    const browser = { name: "browser", port, config: gate({ client: { redirect_uri: forBrowser } }) };
    await Promise.all(["newest", "oldest"].map(async (version) => {
      envoys[version] = await startEnvoy({
        version,
        logLevel: "debug",
        listeners: [
          ...[
            { name: "gate", config: gate() },
            { name: "hasty", config: hasty },
            ...(version === "newest" ? [browser] : []),
          ].map((listener) => ({ ...listener, allowOnHeadersStopIteration: true })),
          // Where gates share a VM, older Envoys take the flag for all of them.
          { name: "flagless", config: hasty, vmId: "flagless" },
        ],
        clusters: { app: upstream.port, idp: oidc.port },
      });
    }));
  });
  after(async () => {
    await Promise.all(Object.values(envoys).map((envoy) => envoy.stop()));
    await Promise.all([oidc?.stop(), upstream?.stop()]);
  });

  const gate = ({ client, provider } = {}) => discoveringGate(oidc, {
    provider,
    client: { ...CLIENT, authentication: "client_secret_post", ...client },
    callback: { keys: [KEY], response_mode: "form_post" },
  });

  for (const version of ["newest", "oldest"]) {
    describe(`${version} Envoy`, () => {
      let envoy;
      let token;

      before(async () => {
        envoy = envoys[version];
        const person = new Person(envoy, "gate");
        await person.submit((await person.visit("/salary")).at(-1));
        token = person.cookies().get("id_token");
      });

      /** The provider's answer to somebody new: what a browser would post, and the headers that it would send. */
      const answered = async () => {
        const person = new Person(envoy, "gate");
        const page = (await person.visit("/salary")).at(-1);
        const body = new URLSearchParams(formOf(page).fields).toString();
        return { body, headers: [...NAVIGATION, FORM, ...person.cookies().headers()] };
      };
      const post = (listener, message) => ask(envoy, listener, { method: "POST", path: "/callback", ...message });
      const completes = ({ answer, entry }) => {
        assert.equal(`${answer.status} ${entry.reason}`, "302 login_completed");
        assert.equal(answer.header("location"), "/salary");
      };
      const unread = ({ answer, entry }) => {
        assert.equal(`${answer.status} ${entry.reason}`, "400 callback_malformed");
        assert.match(answer.text(), /its form did not come/);
        assert.equal(answer.header("cache-control"), "no-store");
        assert.equal(answer.header("set-cookie"), undefined);
      };
      const sent = (name, act) => test(name, async (t) => {
        await act(t);
        await assertHealthy(envoy, "gate", upstream, token);
        assert.deepEqual(upstream.requests.filter(({ path }) => path === "/callback"), [], "the app sees none of it");
      });

      sent("the flow ends well, and its cookie may come from another site", async () => {
        const ada = new Person(envoy, "gate");
        const departure = await ada.visit("/salary");
        const page = departure.at(-1);
        assert.equal(new URL(page.url).origin, oidc.issuer);
        const [begun] = departure[0].all("set-cookie").filter((cookie) => cookie.includes("stepgate_tx"));
        assert.match(begun, /^__Host-.*; SameSite=None; Secure$/);
        const answers = await ada.submit(page);
        assert.deepEqual(answers.map(({ reason }) => reason), ["login_completed", "satisfied"]);
        assert.equal(answers.at(-1).url, `${ORIGIN}/salary`);
        assert.deepEqual(ada.cookies().names(), ["id_token"]);
      });

      sent("without the flag, Envoy delivers no body: an explained answer in time, and the log tells what to do", async () => {
        const { body, headers } = await answered();
        const began = Date.now();
        unread(await post("flagless", { body, headers }));
        assertTook(began);
        await envoy.logged(/form_post response did not come.*needs `allow_on_headers_stop_iteration: true`/);
      });

      sent("a body of exactly the limit, and one byte more", async () => {
        for (const [excess, check] of [[0, completes], [1, unread]]) {
          const { body, headers } = await answered();
          const padding = "&padding=";
          const rest = MAX_FORM_BYTES + excess - body.length - padding.length;
          check(await post("gate", { headers, body: body + padding + "x".repeat(rest) }));
        }
      });

      sent("a body that comes byte by byte, chunked or with a length", async () => {
        for (const chunked of [true, false]) {
          const { body, headers } = await answered();
          const { connection, end } = await begun("gate", [...headers, chunked ? CHUNKED : ["content-length", body.length]]);
          for (const byte of body) {
            connection.write(chunked ? `1\r\n${byte}\r\n` : byte);
            await turn();
          }
          if (chunked) connection.write("0\r\n\r\n");
          completes(await end());
        }
      });

      sent("over HTTP/2", async () => {
        const { body, headers } = await answered();
        const answer = await requestH2(envoy.port("gate"), {
          method: "POST", path: "/callback", headers: Object.fromEntries(headers), body,
        });
        assert.equal(answer.status, 302);
        assert.equal(answer.header("location"), "/salary");
      });

      sent("a body with trailers is no form", async () => {
        const { body, headers } = await answered();
        unread(await post("gate", { headers, chunks: [body], trailers: [["x-trailer", "1"]] }));
        const over2 = { method: "POST", path: "/callback", headers: Object.fromEntries(headers), body };
        const answer = await requestH2(envoy.port("gate"), { ...over2, trailers: { "x-trailer": "1" } });
        assert.equal(answer.status, 400);
        assert.match(answer.text(), /its form did not come/);
      });

      sent("no body, and one that is no form", async () => {
        const { headers } = await answered();
        for (const body of ["", "\xff\0&&==&%", "{}", "code=a&state=b&code=a"]) {
          const { answer, entry } = await post("gate", { headers, body });
          assert.equal(`${answer.status} ${entry.reason}`, "400 callback_malformed");
        }
      });

      sent("a body that never ends: an answer as soon as it is too long, or when its time is up", async () => {
        const { headers } = await answered();
        const long = await begun("hasty", [...headers, CHUNKED]);
        for (let piece = 0; piece <= 16; piece += 1) long.connection.write(`400\r\n${"x".repeat(1024)}\r\n`);
        unread(await long.end());

        const began = Date.now();
        const slow = await begun("hasty", [...headers, CHUNKED]);
        slow.connection.write("4\r\ncode\r\n");
        unread(await slow.end());
        assertTook(began);
      });

      sent("without a login under way, no body is waited for", async () => {
        const { answer, entry } = await (await begun("gate", [...NAVIGATION, FORM, CHUNKED])).end();
        assert.equal(`${answer.status} ${entry.reason}`, "400 transaction_missing");
      });

      sent("clients that are gone before their body is there", async (t) => {
        const { headers } = await answered();
        const active = "^http\\.gate\\.downstream_rq_active$";
        const session = await connectH2(envoy.port("gate"));
        t.after(() => session.close());
        const over2 = { method: "POST", path: "/callback", headers: Object.fromEntries(headers), body: "code=a&", ends: false };
        const streams = Array.from({ length: 20 }, () => session.open(over2));
        const posts = await Promise.all(Array.from({ length: 10 }, () => begun("gate", [...headers, ["content-length", 100]])));
        posts.forEach(({ connection }) => connection.write("code=a&"));
        await envoy.until(active, streams.length + posts.length);
        streams.forEach((stream) => stream.reset());
        posts.forEach(({ connection }) => connection.reset());
        await eventually(10_000, "all are gone", async () => (await envoy.sum(active)) === 0);
      });

      /** A POST to the callback whose body a test writes itself; `end` gives what `post` does. */
      const begun = async (listener, headers) => {
        const connection = await connect(envoy.port(listener));
        const id = randomUUID();
        const fields = [["host", new URL(ORIGIN).host], ...headers, [REQUEST_ID, id]];
        connection.write(`POST /callback HTTP/1.1\r\n${fields.map((field) => field.join(": ")).join("\r\n")}\r\n\r\n`);
        const end = async () => {
          const answer = await connection.answer("POST");
          connection.close();
          return { answer, entry: await envoy.accessLog(id) };
        };
        return { connection, end };
      };
    });
  }

  test("in a browser, the login's cookie survives the POST from another site", { skip: chromiumMissing() }, async (t) => {
    const browser = await launchChromium();
    t.after(() => browser.close());
    const page = await browser.newPage();
    const posted = page.waitForRequest((request) => request.method() === "POST");
    await page.goto(`${browserOrigin}/salary/2026?month=6`);
    await page.waitForURL(`${browserOrigin}/salary/2026?month=6`);
    assert.equal((await (await posted).allHeaders())["sec-fetch-site"], "cross-site");
    assert.match(await page.textContent("body"), /"path":"\/salary\/2026\?month=6"/);
    assert.deepEqual((await page.context().cookies(browserOrigin)).map(({ name }) => name), ["id_token"]);
  });

  test("no secret stands in a log or among counters, and no gate has trapped", async () => {
    const secrets = oidc.at("token").flatMap(({ params }) => [params.code, params.code_verifier]);
    assert.ok(secrets.length > 10);
    for (const envoy of Object.values(envoys)) {
      await assertKept(envoy, [KEY, CLIENT.secret, ...secrets]);
      envoy.assertNoTrap();
      assert.doesNotMatch(envoy.log, /eyJ/);
    }
  });
});

/** As long as `timeout` says: no shorter, and not much longer. */
function assertTook(began) {
  const took = Date.now() - began;
  assert.ok(took >= TIMEOUT && took < TIMEOUT + TICK + 2_000, `${took} ms`);
}
