// The demo: provider, an app without a login, and Envoy with the gate; by an HTTP client, in a browser, and as
// `make demo` runs it. SCREENSHOTS=folder keeps a picture of every page there.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import path from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { promisify } from "node:util";

import { MULTI_FACTOR } from "../../demo/interaction.mjs";
import { startDemo } from "../../demo/stack.mjs";
import { Browser } from "./demo-client.mjs";
import {
  PATIENCE, ROOT, ada, assertFree, chromiumMissing, complaintsOf, demoPorts, launchChromium, runDemo, takeTheTour,
  wrongCode,
} from "./demo-support.mjs";
import { eventually } from "./support/wait.mjs";

const { SCREENSHOTS } = process.env;
const MAX_AGE_SECONDS = 5;

describe("the demo", () => {
  let demo;
  let portal;
  const seenByApp = [];
  const accessLog = [];
  const envoyLog = [];

  before(async () => {
    demo = await startDemo({
      envoy: process.env.ENVOY,
      wasm: process.env.STEPGATE_WASM,
      ports: await demoPorts(),
      adjustGate: ({ rules }) => {
        rules.find(({ name }) => name === "bank-account").require.max_age = `${MAX_AGE_SECONDS}s`;
      },
      onRequest: (request) => seenByApp.push(request),
      onAccess: (entry) => accessLog.push(entry),
      onLog: (line) => envoyLog.push(line),
    });
    portal = demo.publicUrl;
  });
  after(() => demo?.stop());

  test("envoy.yaml is valid as it is", async () => {
    const validate = ["--mode", "validate", "--config-path", "envoy/envoy.yaml", "--log-level", "error"];
    const env = { ...process.env, STEPGATE_CLIENT_SECRET: "secret", STEPGATE_KEY: randomBytes(32).toString("base64") };
    await promisify(execFile)(process.env.ENVOY, validate, { cwd: ROOT, env });
  });

  test("without a token, the gate answers with the provider's authorize URL", async () => {
    const asked = async (target) => {
      const answer = await new Browser().open(portal + target, { follow: false });
      assert.equal(answer.status, 302);
      assert.equal(answer.headers["cache-control"], "no-store");
      const location = new URL(answer.location);
      assert.equal(location.origin + location.pathname, `${demo.provider.issuer}/auth`);
      const { state, nonce, code_challenge: challenge, ...rest } = Object.fromEntries(location.searchParams);
      for (const random of [state, nonce, challenge]) assert.ok(random.length >= 22);
      return rest;
    };
    const login = {
      response_type: "code",
      client_id: "stepgate-demo",
      redirect_uri: `${portal}/callback`,
      scope: "openid",
      code_challenge_method: "S256",
    };
    assert.deepEqual(await asked("/news"), login);
    assert.deepEqual(await asked("/salary/2026?month=6"), { ...login, acr_values: MULTI_FACTOR });
    assert.deepEqual(await asked("/salary/bank-account"), {
      ...login, acr_values: MULTI_FACTOR, max_age: String(MAX_AGE_SECONDS),
    });
    assert.deepEqual(seenByApp, [], "the app has seen nothing");
  });

  test("the script is public, and nothing else is", async () => {
    const statusOf = async (target) => (await fetch(portal + target, { headers: { accept: "application/json" } })).status;
    assert.equal(await statusOf("/portal.js"), 200);
    for (const target of ["/", "/portal.js/", "/salary/payslips.json", "/style.css"]) {
      assert.equal(await statusOf(target), 401, target);
    }
  });

  test("the app learns the user from the gate alone, and sees no token", async () => {
    const browser = new Browser();
    const page = await browser.submit(await browser.open(`${portal}/news`), "/password", ada);
    assert.equal(page.url, `${portal}/news`);
    assert.match(page.text, /Signed in as ada/);

    await browser.open(`${portal}/?forged`, { headers: { "x-user-id": "mallory" } });
    const { headers } = seenByApp.find((request) => request.path === "/?forged");
    assert.equal(headers["x-user-id"], "ada");
    assert.doesNotMatch(JSON.stringify(seenByApp), /eyJ/);
    await fetch(`${portal}/portal.js`, { headers: { "x-user-id": "mallory" } });
    assert.equal(seenByApp.at(-1).headers["x-user-id"], undefined);
  });

  test("decisions are in the access log and, with tags, in the counters", async () => {
    const browser = new Browser();
    await browser.submit(await browser.open(`${portal}/news?decisions`), "/password", ada);
    await browser.open(`${portal}/salary`, { follow: false });
    const logged = (target, status, reason) => accessLog.some((entry) => (
      entry.path === target && entry.status === status && entry.stepgate === reason
    ));
    await eventually(PATIENCE, "all decisions are in the access log", () => (
      logged("/news", 302, "token_missing") && logged("/callback", 302, "login_completed")
      && logged("/news", 200, "satisfied") && logged("/salary", 302, "amr_missing")
    ));
    assert.ok(accessLog.every((entry) => !entry.path.includes("?")), "no query, so no authorization code");

    const counters = await (await fetch(`${demo.adminUrl}/stats/prometheus?filter=stepgate_`)).text();
    assert.match(counters, /^stepgate_decisions\{decision="redirect",reason="token_missing"\} [1-9]/m);
    assert.match(counters, /^stepgate_decisions\{decision="forward",reason="satisfied"\} [1-9]/m);
    assert.match(counters, /^stepgate_fetches\{endpoint="keys",result="ok"\} [1-9]/m);
  });

  test("a rule in report mode stops nobody, and is told where the page says", async () => {
    const browser = new Browser();
    const page = await browser.submit(await browser.open(`${portal}/expenses`), "/password", ada);
    assert.equal(page.url, `${portal}/expenses`);
    const [line, fields, counter] = [...page.text.matchAll(/<dd><code>(.*?)<\/code>/g)].map(([, text]) => text.replaceAll("&#34;", '"'));

    const ofTheLog = line.replace("…", "the ID Token does not say how the person logged in (no `amr`)");
    await eventually(PATIENCE, "Envoy's log has the line", () => envoyLog.some((logged) => logged.endsWith(ofTheLog)));
    const told = Object.entries(JSON.parse(`{${fields}}`));
    await eventually(PATIENCE, "the access log has the fields", () => (
      accessLog.some((entry) => entry.path === "/expenses" && told.every(([name, value]) => entry[name] === value))
    ));
    const [, countersUrl] = /href="([^"]*)">What it has counted/.exec(page.text);
    assert.equal(countersUrl, demo.countersUrl);
    const counted = async () => (await (await fetch(countersUrl)).text()).split("\n").find((counted) => counted.startsWith(`${counter} `));
    const before = await eventually(PATIENCE, "it is counted", counted);

    await browser.submit(await browser.open(`${portal}/salary`), "/code", { code: demo.provider.totp() });
    assert.match((await browser.open(`${portal}/expenses?mfa`)).text, /<h1>Expenses<\/h1>/);
    assert.equal(await counted(), before, "with a second factor, nothing is left to report");
  });

  describe("in Chromium", { skip: chromiumMissing() }, () => {
    let chromium;
    let context;
    let complaints;

    before(async () => {
      chromium = await launchChromium();
    });
    after(() => chromium?.close());

    beforeEach(async () => {
      context = await chromium.newContext();
      context.setDefaultTimeout(PATIENCE);
      complaints = complaintsOf(context);
    });
    afterEach(async () => {
      await context.close();
      assert.deepEqual(complaints, []);
    });

    const heading = (page) => page.getByRole("heading", { level: 1 }).innerText();
    const tokenCookie = async () => (await context.cookies(portal)).find(({ name }) => name === "id_token");
    const openings = (target) => seenByApp.filter((request) => request.path === target).length;

    async function picture(page, name) {
      if (SCREENSHOTS) await page.screenshot({ path: path.join(SCREENSHOTS, `${name}.png`), fullPage: true });
    }

    async function givePassword(page) {
      await page.getByLabel("User name").fill(ada.username);
      await page.getByLabel("Password").fill(ada.password);
      await page.getByRole("button", { name: "Continue" }).click();
    }

    async function giveCode(page, code = demo.provider.totp()) {
      await page.getByLabel("One-time code").fill(code);
      await page.getByRole("button", { name: "Confirm" }).click();
    }

    /** A tab that is at `target` after a login with the password alone. */
    async function signedIn(target = "/news") {
      const page = await context.newPage();
      await page.goto(portal + target);
      await givePassword(page);
      await page.waitForURL(portal + target);
      return page;
    }

    test("a password leads to the very page that was asked for", async () => {
      const target = "/news?week=48&topic=pizza%20%26%20more";
      const page = await signedIn(target);
      assert.equal(await heading(page), "News");
      await page.getByRole("heading", { name: "Signed in as ada" }).waitFor();
      assert.ok((await tokenCookie()).httpOnly);
      await picture(page, "news");
    });

    test("a second factor is asked for where a rule wants it, and leads back", async () => {
      const target = "/salary/2026?month=6&half=first";
      const page = await signedIn();
      await page.goto(portal + target);
      await giveCode(page, wrongCode(demo.provider));
      assert.match(await page.getByRole("alert").innerText(), /That code is not right/);
      assert.equal(openings(target), 0, "the app has seen nothing");
      await picture(page, "wrong-code");

      await giveCode(page);
      await page.waitForURL(portal + target);
      assert.equal(await heading(page), "Payslips 2026");
      assert.equal(openings(target), 1);
      await picture(page, "payslips");

      await page.getByRole("link", { name: "Salary" }).click();
      await page.waitForURL(`${portal}/salary`);
      await page.getByRole("button", { name: "Load payslips" }).click();
      await page.getByText("June, net").waitFor();
      await picture(page, "salary");
    });

    test("two tabs log in and step up at the same time", async () => {
      const tabs = [await context.newPage(), await context.newPage()];
      const targets = ["/salary?tab=1", "/salary/2026?tab=2"];
      for (const [i, tab] of tabs.entries()) await tab.goto(portal + targets[i]);
      for (const tab of tabs) await givePassword(tab);
      for (const tab of tabs) await tab.getByLabel("One-time code").waitFor();
      for (const [i, tab] of tabs.entries()) {
        await giveCode(tab);
        await tab.waitForURL(portal + targets[i]);
      }
      assert.equal(await heading(tabs[0]), "Salary");
      assert.equal(await heading(tabs[1]), "Payslips 2026");
    });

    test("two tabs of one session step up at the same time, and the one that began first ends last", async () => {
      const tabs = [await signedIn(), await context.newPage()];
      const targets = ["/salary?tab=1", "/salary/2026?tab=2"];
      for (const [i, tab] of tabs.entries()) await tab.goto(portal + targets[i]);
      for (const i of [1, 0]) {
        await giveCode(tabs[i]);
        await tabs[i].waitForURL(portal + targets[i]);
      }
    });

    test("back, after a step-up, is a page that says it is over, and then the page before", async () => {
      const page = await signedIn();
      await page.goto(`${portal}/salary`);
      await giveCode(page);
      await page.waitForURL(`${portal}/salary`);

      await page.goBack();
      assert.equal(await heading(page), "This sign-in is over");
      await picture(page, "back");
      await page.goBack();
      await page.waitForURL(`${portal}/news`);
      assert.equal(await heading(page), "News");
      await page.goto(`${portal}/salary`);
      assert.equal(await heading(page), "Salary");
    });

    test("a callback that is opened again is explained, and logs nobody out", async () => {
      const page = await context.newPage();
      const callback = page.waitForRequest((request) => request.url().startsWith(`${portal}/callback?`));
      await page.goto(`${portal}/news`);
      await givePassword(page);
      await page.waitForURL(`${portal}/news`);

      const answer = await page.goto((await callback).url());
      assert.equal(answer.status(), 400);
      await page.getByText("transaction_missing").waitFor();
      await picture(page, "callback-again");
      await page.goto(`${portal}/news`);
      assert.equal(await heading(page), "News");
    });

    test("to cancel is explained, with a way to try again", async () => {
      const page = await signedIn();
      await page.goto(`${portal}/salary?month=6`);
      await page.getByRole("button", { name: "Cancel" }).click();
      await page.getByText("authorization_denied").waitFor();
      await picture(page, "cancelled");
      assert.equal(await page.locator('a[href="/"]').count(), 1);

      await page.getByRole("link", { name: "Try again" }).click();
      await giveCode(page);
      await page.waitForURL(`${portal}/salary?month=6`);
    });

    test("a login that has become too old for one page still opens the others", async () => {
      const target = `${portal}/salary/bank-account`;
      const page = await context.newPage();
      await page.goto(target);
      await givePassword(page);
      await giveCode(page);
      await page.waitForURL(target);
      assert.equal(await heading(page), "Bank account");
      await picture(page, "bank-account");

      await eventually(PATIENCE, "the login is too old", async () => {
        const answer = await context.request.get(target, { headers: { accept: "application/json" } });
        return answer.status() === 401 && (await answer.json()).reason === "auth_too_old";
      });
      await page.getByLabel("New account").fill("GB82 WEST 1234 5698 7654 32");
      await page.getByRole("button", { name: "Save" }).click();
      await page.getByRole("link", { name: "Confirm it is you" }).click();
      await givePassword(page);
      await giveCode(page);
      await page.waitForURL(target);
      await page.getByText("DE89 3704 0044 0532 0130 00").waitFor();
      await page.getByLabel("New account").fill("GB82 WEST 1234 5698 7654 32");
      await page.getByRole("button", { name: "Save" }).click();
      await page.getByText("GB82 WEST 1234 5698 7654 32").waitFor();

      await eventually(PATIENCE, "the page is asked for again", async () => {
        await page.goto(target);
        return page.url() !== target;
      });
      await page.getByLabel("Password").waitFor();
      for (const [open, title] of [["/news", "News"], ["/salary", "Salary"]]) {
        await page.goto(portal + open);
        assert.equal(await heading(page), title);
      }
    });

    test("fetch() learns from the 401 where to step up, and comes back to its page", async () => {
      const home = "/?from=mail";
      const page = await signedIn(home);
      await picture(page, "home");
      const [refusal] = await Promise.all([
        page.waitForResponse(`${portal}/salary/payslips.json`),
        page.getByRole("button", { name: "Show my latest payslip here" }).click(),
      ]);
      assert.equal(refusal.status(), 401);
      const { reason, step_up_url: stepUpUrl } = await refusal.json();
      assert.equal(reason, "amr_missing");
      assert.ok(stepUpUrl.startsWith(`${portal}/callback?step_up=`));
      const confirm = page.getByRole("link", { name: "Confirm it is you" });
      await confirm.waitFor();
      await picture(page, "home-refused");

      await confirm.click();
      await giveCode(page);
      await page.waitForURL(portal + home);
      await page.getByRole("button", { name: "Show my latest payslip here" }).click();
      await page.getByText("June, net").waitFor();
      await picture(page, "home-payslip");
    });

    test("to sign out ends the session here and at the provider", async () => {
      const page = await signedIn();
      await page.getByRole("link", { name: "Sign out" }).click();
      await page.getByRole("heading", { name: "Sign out of Acme ID too?" }).waitFor();
      assert.equal(await tokenCookie(), undefined);
      await picture(page, "sign-out");

      await page.getByRole("button", { name: "Yes, sign out" }).click();
      await page.getByLabel("Password").waitFor();
      await page.goto(`${portal}/news`);
      await page.getByLabel("Password").waitFor();
      await picture(page, "password");
    });

    test("to sign out here alone leads back without a question", async () => {
      const page = await signedIn();
      await page.getByRole("link", { name: "Sign out" }).click();
      await page.getByRole("button", { name: "Stay signed in" }).click();
      await page.waitForURL(`${portal}/`);
      assert.equal(await heading(page), "Good day, ada");
    });
  });
});

describe("make demo", () => {
  test("tells what to try, prints code and decisions, and stops everything on Ctrl-C", (t) => takeTheTour(t));

  test("prints what a rule in report mode would have done", async (t) => {
    const ports = await demoPorts();
    const runner = runDemo(t, { ports });
    await runner.prints(/Ctrl-C stops everything/);
    const portal = `http://127.0.0.1:${ports.portal}`;
    const browser = new Browser();
    await browser.submit(await browser.open(`${portal}/expenses`), "/password", ada);
    await runner.prints(/stepgate: report only, rule expenses: amr_missing/);
    await runner.prints(/GET \/expenses {2}200 {2}amr_missing, let through: expenses only reports/);
    assert.ok(runner.output.includes(`http://127.0.0.1:${ports.admin}/stats/prometheus?filter=stepgate_rules`));
  });

  test("says which port is taken, by what to find out, and leaves nothing running", async (t) => {
    const ports = await demoPorts();
    const holder = createServer().listen(ports.portal, "127.0.0.1");
    await once(holder, "listening");
    t.after(() => holder.close());

    const runner = runDemo(t, { ports });
    assert.equal(await runner.exitCode, 1);
    assert.match(runner.output, new RegExp(`Port ${ports.portal} is taken.*the address of the portal`));
    assert.match(runner.output, new RegExp(`ss -ltnp 'sport = :${ports.portal}'`));
    assert.match(runner.output, /make demo PORTAL_PORT=/);
    await assertFree({ ...ports, portal: undefined });
  });

  test("says so when Envoy ends, with its last words", async (t) => {
    const ports = await demoPorts();
    const runner = runDemo(t, { ports });
    await runner.prints(/Ctrl-C stops everything/);
    await fetch(`http://127.0.0.1:${ports.admin}/quitquitquit`, { method: "POST" });
    assert.equal(await runner.exitCode, 1);
    assert.match(runner.output, /Envoy ended with code 0/);
    await assertFree(ports);
  });

  test("says so when Envoy does not start", async (t) => {
    const ports = await demoPorts();
    const runner = runDemo(t, { ports, environment: { ENVOY: process.execPath } });
    assert.equal(await runner.exitCode, 1);
    assert.match(runner.output, /Envoy ended with code 9\.\n.*bad option/s);
    await assertFree(ports);
  });

  test("says so when the module is missing", async (t) => {
    const runner = runDemo(t, { ports: await demoPorts(), environment: { STEPGATE_WASM: "dist/missing.wasm" } });
    assert.equal(await runner.exitCode, 1);
    assert.match(runner.output, /dist\/missing\.wasm is missing\. `make build` makes it\./);
  });

  test("says so when there is no such app", async (t) => {
    const runner = runDemo(t, { app: "other", ports: await demoPorts() });
    assert.equal(await runner.exitCode, 1);
    assert.match(runner.output, /APP must be one of: portal, own-login\./);
  });
});
