// The demo whose app has a login of its own: provider, app and Envoy with the gate, by an HTTP client, in a browser, and as
// `make demo APP=own-login` runs it.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, mock, test } from "node:test";
import { promisify } from "node:util";

import { decodeJwt, decodeProtectedHeader } from "jose";

import { MULTI_FACTOR } from "../../demo/interaction.mjs";
import { startApp } from "../../demo/own-login/app.mjs";
import { DEMO_USER, startProvider } from "../../demo/provider.mjs";
import { startDemo } from "../../demo/stack.mjs";
import { Browser } from "./demo-client.mjs";
import {
  PATIENCE, ROOT, ada, alertOf, chromiumMissing, complaintsOf, demoPorts, freePorts, launchChromium, takeTheTour,
  wrongCode,
} from "./demo-support.mjs";
import { eventually } from "./support/wait.mjs";

describe("the provider and the app, without a gate", () => {
  let provider;
  let app;
  let portal;

  before(async () => {
    const [port] = await freePorts(1);
    portal = `http://127.0.0.1:${port}`;
    const mallory = { username: "mallory", password: "malice", name: "Mallory" };
    provider = await startProvider({ port: 0, redirectUri: `${portal}/callback`, users: [DEMO_USER, mallory] });
    app = await startApp({ port, issuer: provider.issuer, publicUrl: portal });
  });
  after(async () => {
    await app?.close();
    await provider?.close();
  });

  const tokenOf = (browser) => decodeJwt(browser.cookie(portal, "id_token"));

  async function signedIn(user = ada) {
    const browser = new Browser();
    const page = await browser.submit(await browser.open(`${portal}/news`), "/password", user);
    assert.equal(page.url, `${portal}/news`);
    return browser;
  }

  /** What the gate would redirect to. */
  function stepUpUrl(path, changes = {}) {
    const state = `${"s".repeat(22)}.${Buffer.from(path).toString("base64url")}`;
    return `${provider.issuer}/auth?${new URLSearchParams({
      response_type: "code", client_id: "stepgate-demo", redirect_uri: `${portal}/callback`, scope: "openid",
      state, nonce: "n".repeat(22), acr_values: MULTI_FACTOR, ...changes,
    })}`;
  }

  /** Steps up and stops at the callback's URL. */
  async function callbackOf(browser, path, username = "ada") {
    const page = await browser.open(stepUpUrl(path));
    const done = await browser.submit(page, "/code", { code: provider.totp(username) }, { follow: false });
    const { location } = await browser.open(done.location, { follow: false });
    assert.ok(location.startsWith(`${portal}/callback?`));
    return location;
  }

  test("a password alone gives a token without amr and acr", async () => {
    const browser = await signedIn();
    const claims = tokenOf(browser);
    assert.equal(claims.sub, "ada");
    assert.equal(claims.amr, undefined);
    assert.equal(claims.acr, undefined);
    assert.equal(typeof claims.auth_time, "number");
  });

  test("a code gives amr and acr, and the page it was asked for", async () => {
    const browser = await signedIn();
    const asked = await browser.open(stepUpUrl("/salary/2026"));
    const page = await browser.submit(asked, "/code", { code: provider.totp() });
    assert.equal(page.url, `${portal}/salary/2026`);
    assert.match(page.text, /Payslips 2026/);
    assert.deepEqual(tokenOf(browser).amr, ["pwd", "otp", "mfa"]);
    assert.equal(tokenOf(browser).acr, MULTI_FACTOR);
  });

  test("a wrong password is said to be wrong", async () => {
    const browser = new Browser();
    const page = await browser.submit(await browser.open(`${portal}/`), "/password", { ...ada, password: "babbage" });
    assert.equal(page.status, 422);
    assert.match(alertOf(page), /do not match.*4 attempts left/);
  });

  test("the fifth wrong code ends the sign-in", async () => {
    const browser = await signedIn();
    let page = await browser.open(stepUpUrl("/salary"));
    for (const left of ["4 attempts", "3 attempts", "2 attempts", "One attempt"]) {
      page = await browser.submit(page, "/code", { code: wrongCode(provider) });
      assert.equal(page.status, 422);
      assert.match(alertOf(page), new RegExp(`not right.*${left} left`));
    }
    page = await browser.submit(page, "/code", { code: wrongCode(provider) });
    assert.equal(page.status, 403);
    assert.match(page.url, /\/callback\?error=access_denied/);
    assert.match(page.text, /That page stays closed/);
    assert.equal(tokenOf(browser).amr, undefined);
  });

  test("to cancel is to be denied", async () => {
    const browser = await signedIn();
    const page = await browser.submit(await browser.open(stepUpUrl("/salary")), "/cancel");
    assert.equal(page.status, 403);
    assert.match(page.url, /error=access_denied/);
  });

  test("max_age asks for the password again, and for the code as well where it is asked for", async () => {
    const browser = await signedIn();
    mock.timers.enable({ apis: ["Date"], now: Date.now() + 60_000 });
    try {
      let page = await browser.open(stepUpUrl("/salary", { max_age: "30" }));
      page = await browser.submit(page, "/password", ada);
      page = await browser.submit(page, "/code", { code: provider.totp() });
      assert.equal(page.url, `${portal}/salary`);
      assert.equal(tokenOf(browser).auth_time, Math.floor(Date.now() / 1000));

      mock.timers.tick(60_000);
      page = await browser.open(`${portal}/login?max_age=30&return_to=/news`);
      page = await browser.submit(page, "/password", ada);
      assert.equal(page.url, `${portal}/news`);
      assert.equal(tokenOf(browser).amr, undefined);
    } finally {
      mock.timers.reset();
    }
  });

  test("another person's code on a forged link does not change who is signed in", async () => {
    const forged = await callbackOf(await signedIn({ username: "mallory", password: "malice" }), "/salary", "mallory");
    const victim = await signedIn();
    const token = victim.cookie(portal, "id_token");
    const answer = await victim.open(forged, { follow: false });
    const target = new URL(answer.location, portal);
    assert.equal(target.pathname, "/login");
    assert.deepEqual(Object.fromEntries(target.searchParams), { return_to: "/salary", acr_values: MULTI_FACTOR });
    assert.ok(victim.cookie(portal, "id_token") === token, "the token is the victim's own");
  });

  test("a code on a link signs in nobody who was not", async () => {
    const forged = await callbackOf(await signedIn(), "/salary");
    const victim = new Browser();
    const answer = await victim.open(forged, { follow: false });
    assert.match(answer.location, /^\/login\?return_to=%2Fsalary/);
    assert.equal(victim.cookie(portal, "id_token"), undefined);
  });

  test("without a session, the step-up ends in the app's own login, and there", async () => {
    const browser = new Browser();
    let page = await browser.submit(await browser.open(stepUpUrl("/salary")), "/password", ada);
    page = await browser.submit(page, "/code", { code: provider.totp() });
    assert.equal(page.url, `${portal}/salary`);
    assert.deepEqual(tokenOf(browser).amr, ["pwd", "otp", "mfa"]);
  });

  test("a code is good for one use", async () => {
    const browser = await signedIn();
    const callback = await callbackOf(browser, "/salary");
    assert.equal((await browser.open(callback)).url, `${portal}/salary`);
    assert.equal((await browser.open(callback)).status, 400);
  });

  for (const path of ["//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nset-cookie: x=y", "/\u0000", ""]) {
    test(`the way back stays on the portal: ${JSON.stringify(path)}`, async () => {
      const browser = await signedIn();
      const answer = await browser.open(await callbackOf(browser, path), { follow: false });
      assert.equal(answer.location, "/");

      const login = await browser.open(`${portal}/login?${new URLSearchParams({ return_to: path })}`);
      assert.equal(login.url, `${portal}/`);
    });
  }

  test("signing out of the portal and of the provider", async () => {
    const browser = await signedIn();
    const page = await browser.submit(await browser.open(`${portal}/news`), "/logout");
    assert.equal(browser.cookie(portal, "id_token"), undefined);
    assert.match(page.text, /Sign out of Acme ID too\?/);
    assert.match((await browser.submit(page, "/confirm", { logout: "yes" })).text, /name="password"/);
  });

  test("another site cannot sign anybody out", async () => {
    const browser = await signedIn();
    const page = await browser.open(`${portal}/news`);
    await browser.submit(page, "/logout", {}, { headers: { origin: "https://evil.example" } });
    assert.equal(tokenOf(browser).sub, "ada");
  });

  test("after a rotation the new key signs and the old one still verifies", async () => {
    const browser = await signedIn();
    const old = decodeProtectedHeader(browser.cookie(portal, "id_token")).kid;
    await provider.rotateKeys();
    const { keys } = await (await fetch(`${provider.issuer}/jwks`)).json();
    assert.equal(keys.length, 2);
    assert.equal(keys[1].kid, old);

    mock.timers.enable({ apis: ["Date"], now: Date.now() + 60_000 }); // the app fetches keys again only after a while
    try {
      assert.equal((await browser.open(`${portal}/news`)).url, `${portal}/news`, "the old token is still good");
      const page = await browser.submit(await browser.open(stepUpUrl("/salary")), "/code", { code: provider.totp() });
      assert.equal(page.url, `${portal}/salary`, "the session survives the rotation");
      assert.equal(decodeProtectedHeader(browser.cookie(portal, "id_token")).kid, keys[0].kid);
    } finally {
      mock.timers.reset();
    }
  });
});

describe("the demo with an app that has a login", () => {
  let demo;
  let portal;
  const seenByApp = [];
  const accessLog = [];

  before(async () => {
    demo = await startDemo({
      app: "own-login",
      envoy: process.env.ENVOY,
      wasm: process.env.STEPGATE_WASM,
      ports: await demoPorts(),
      onRequest: (request) => seenByApp.push(request.path),
      onAccess: (entry) => accessLog.push(entry),
    });
    portal = demo.publicUrl;
  });
  after(() => demo?.stop());

  const salaryRequests = () => seenByApp.filter((path) => path.startsWith("/salary")).length;

  test("envoy-own-login.yaml is valid as it is", async () => {
    const validate = ["--mode", "validate", "--config-path", "envoy/envoy-own-login.yaml", "--log-level", "error"];
    await promisify(execFile)(process.env.ENVOY, validate, { cwd: ROOT });
  });

  test("without a token, the gate answers with the provider's authorize URL", async () => {
    const answer = await new Browser().open(`${portal}/salary/2026?month=6`, { follow: false });
    assert.equal(answer.status, 302);
    assert.equal(answer.headers["cache-control"], "no-store");
    const location = new URL(answer.location);
    assert.equal(location.origin + location.pathname, `${demo.provider.issuer}/auth`);
    const { state, nonce, ...rest } = Object.fromEntries(location.searchParams);
    assert.deepEqual(rest, {
      response_type: "code",
      client_id: "stepgate-demo",
      redirect_uri: `${portal}/callback`,
      scope: "openid",
      acr_values: MULTI_FACTOR,
    });
    assert.equal(Buffer.from(state.split(".")[1], "base64url").toString(), "/salary/2026");
    assert.ok(nonce.length >= 16);
    assert.equal(salaryRequests(), 0, "the app has seen nothing");
  });

  test("password, then news; code, then salary", async () => {
    const browser = new Browser();
    let page = await browser.submit(await browser.open(`${portal}/news`), "/password", ada);
    assert.equal(page.status, 200);
    assert.match(page.text, /<h1>News<\/h1>/);

    page = await browser.open(`${portal}/salary`);
    assert.match(page.text, /One-time code/);
    page = await browser.submit(page, "/code", { code: wrongCode(demo.provider) });
    assert.match(alertOf(page), /That code is not right/);
    assert.equal(salaryRequests(), 0, "the app has seen nothing");

    page = await browser.submit(page, "/code", { code: demo.provider.totp() });
    assert.equal(page.status, 200);
    assert.equal(page.url, `${portal}/salary`);
    assert.match(page.text, /<h1>Salary<\/h1>/);
    assert.equal(salaryRequests(), 1);

    page = await browser.open(`${portal}/salary/2026`);
    assert.match(page.text, /Payslips 2026/);
  });

  test("straight to salary: password, code, salary", async () => {
    const browser = new Browser();
    let page = await browser.submit(await browser.open(`${portal}/salary`), "/password", ada);
    page = await browser.submit(page, "/code", { code: demo.provider.totp() });
    assert.equal(page.url, `${portal}/salary`);
    assert.match(page.text, /<h1>Salary<\/h1>/);
  });

  test("an API client is told what is missing", async () => {
    const answer = await fetch(`${portal}/salary`, { headers: { accept: "application/json" }, redirect: "manual" });
    assert.equal(answer.status, 401);
    assert.match(answer.headers.get("www-authenticate"), /^Bearer /);
  });

  test("decisions are in the access log and, with tags, in the counters", async () => {
    const browser = new Browser();
    await browser.submit(await browser.open(`${portal}/news`), "/password", ada);
    await browser.open(`${portal}/salary`, { follow: false });
    await eventually(PATIENCE, "both are in the access log", () => (
      accessLog.some(({ path }) => path === "/callback") && accessLog.some(({ path, status, stepgate }) => (
        path === "/salary" && status === 302 && stepgate?.includes("amr_missing")
      ))
    ));
    assert.ok(accessLog.every(({ path }) => !path.includes("?")), "no query, so no authorization code");

    const counters = await (await fetch(`${demo.adminUrl}/stats/prometheus?filter=stepgate_`)).text();
    assert.match(counters, /^stepgate_decisions\{decision="redirect",reason="amr_missing"\} [1-9]/m);
    assert.match(counters, /^stepgate_decisions\{decision="forward",reason="satisfied"\} [1-9]/m);
    assert.match(counters, /^stepgate_signatures\{by="host",algorithm="RS256"\} [1-9]/m);
    assert.match(counters, /^stepgate_fetches\{endpoint="keys",result="ok"\} [1-9]/m);
  });

  test("in Chromium", { skip: chromiumMissing() }, async (t) => {
    const chromium = await launchChromium();
    t.after(() => chromium.close());
    const page = await chromium.newPage();
    const complaints = complaintsOf(page);
    const amr = () => page.locator("dt", { hasText: /^amr$/ }).locator("xpath=following-sibling::dd").innerText();

    await page.goto(`${portal}/news`);
    await page.getByLabel("User name").fill("ada");
    await page.getByLabel("Password").fill("lovelace");
    await page.getByRole("button", { name: "Continue" }).click();
    await page.waitForURL(`${portal}/news`);
    assert.equal(await amr(), "absent: password only");

    await page.getByRole("link", { name: "Salary" }).first().click();
    await page.getByLabel("One-time code").fill(wrongCode(demo.provider));
    await page.getByRole("button", { name: "Confirm" }).click();
    assert.match(await page.getByRole("alert").innerText(), /That code is not right/);
    await page.getByLabel("One-time code").fill(demo.provider.totp());
    await page.getByRole("button", { name: "Confirm" }).click();
    await page.waitForURL(`${portal}/salary`);
    assert.equal(await page.getByRole("heading", { level: 1 }).innerText(), "Salary");
    assert.match(await amr(), /mfa/);

    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("button", { name: "Yes, sign out" }).click();
    await page.getByLabel("User name").waitFor();
    await page.goto(`${portal}/salary`);
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("heading", { name: "That page stays closed" }).waitFor();
    assert.deepEqual(complaints, []);
  });
});

describe("make demo APP=own-login", () => {
  test("tells what to try, prints code and decisions, and stops everything on Ctrl-C", (t) => (
    takeTheTour(t, { app: "own-login" })));
});
