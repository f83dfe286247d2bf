// The loop guard in a real browser: a provider with a session sends the browser straight back, each time with a token that
// proves too little. What the browser says of a navigation (Fetch Metadata) survives the redirects.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { chromium } from "playwright-core";

import { startEnvoy } from "./support/envoy.mjs";
import { inlineGate } from "./support/gate.mjs";
import { mint } from "./support/tokens.mjs";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const MAX_ATTEMPTS = 3;
const skip = !existsSync(CHROMIUM) && !process.env.CI && `there is no ${CHROMIUM}`;

describe("a loop in a browser", { skip }, () => {
  let provider;
  let app;
  let envoy;
  let browser;
  let stepUps = 0;
  let gate;

  before(async () => {
    provider = await listening((request, response) => {
      stepUps += 1;
      response.writeHead(302, { location: `${gate}/callback` }).end();
    });
    app = await listening((request, response) => {
      if (request.url === "/") {
        response.writeHead(200, { "content-type": "text/html" }).end('<a href="/salary">Salary</a>');
        return;
      }
      stepUps += request.url.startsWith("/login") ? 1 : 0;
      const weak = `id_token=${mint({ claims: { amr: ["pwd"] } })}; Path=/; HttpOnly`;
      response.writeHead(302, { location: "/salary", "set-cookie": weak }).end();
    });
    const config = (stepUp) => inlineGate({
      provider: { authorization_endpoint: `${origin(provider)}/authorize` },
      step_up: { max_attempts: MAX_ATTEMPTS, ...stepUp },
    });
    envoy = await startEnvoy({
      listeners: [
        { name: "provider", config: config({}) },
        { name: "login", config: config({ login_url: "/login" }) },
      ],
      clusters: { app: app.address().port },
    });
    browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    });
  });
  after(async () => {
    await browser?.close();
    await envoy?.stop();
    for (const server of [provider, app]) server?.close();
  });

  const ways = {
    "the address was typed": async (page) => page.goto(`${gate}/salary`),
    "a link of the app was followed": async (page) => {
      await page.goto(`${gate}/`);
      const [answer] = await Promise.all([page.waitForResponse((response) => response.status() === 403), page.click("a")]);
      return answer;
    },
  };
  for (const listener of ["provider", "login"]) {
    for (const [way, go] of Object.entries(ways)) {
      test(`ends in an explanation: by the ${listener}, after ${way}`, { timeout: 30_000 }, async () => {
        gate = `http://127.0.0.1:${envoy.port(listener)}`;
        stepUps = 0;
        const context = await browser.newContext();
        const page = await context.newPage();
        const answer = await go(page);
        assert.equal(answer.status(), 403);
        assert.equal(stepUps, MAX_ATTEMPTS);
        await page.waitForSelector("text=step_up_failed");
        await context.close();
      });
    }
  }
});

function origin(server) {
  return `http://127.0.0.1:${server.address().port}`;
}

function listening(handle) {
  return new Promise((resolve) => {
    const server = createServer(handle).listen(0, "127.0.0.1", () => resolve(server));
  });
}
