// People and others who use the demo's portal, so that every kind of decision comes up.

import { startDemo } from "../demo/stack.mjs";
import { Browser } from "../tests/e2e/demo-client.mjs";
import { ada, demoPorts } from "../tests/e2e/demo-support.mjs";

const JSON_ONLY = { accept: "application/json", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty" };
const NOBODYS_STATE = "s".repeat(22);

/**
 * The demo, with one rule more that its provider cannot satisfy, and with keys that are fetched and grow too old within the
 * times given.
 */
export async function startPortal({ refresh, maxStale, ...options }) {
  const demo = await startDemo({
    envoy: process.env.ENVOY,
    wasm: process.env.STEPGATE_WASM,
    ports: await demoPorts(),
    adjustGate: ({ provider, rules }, config) => {
      config.stats_flush_interval = "0.2s"; // histograms tell nothing before
      config.layered_runtime = { layers: [{ name: "admin", admin_layer: {} }] };
      Object.assign(provider, { refresh, max_stale: maxStale });
      rules.push({ name: "vault", paths: ["/vault/**"], require: { amr: "hwk" } });
    },
    ...options,
  });
  const portal = demo.publicUrl;

  return {
    ...demo,
    /** Logs in with a password, looks around, and gives a code where it is asked for. */
    async employee() {
      const browser = new Browser();
      await browser.submit(await browser.open(`${portal}/news`), "/password", ada);
      for (const path of ["/", "/portal.js", "/expenses"]) await browser.open(portal + path);
      await browser.open(`${portal}/salary/payslips.json`, { headers: JSON_ONLY });
      await browser.submit(await browser.open(`${portal}/salary`), "/code", { code: demo.provider.totp() });
      for (const path of ["/salary/2026", "/salary/bank-account", "/expenses"]) await browser.open(portal + path);
      return browser;
    },
    /** Opens what the provider cannot prove enough for. */
    async stuck(browser) {
      return browser.open(`${portal}/vault`);
    },
    /** Looks for weak spots. */
    async scanner() {
      const nobody = new Browser();
      for (const path of ["/salary/%zz", `/callback?code=guessed&state=${NOBODYS_STATE}`, "/.env"]) {
        await nobody.open(portal + path, { follow: false });
      }
    },
    /** Logs in as far as a login goes. */
    async newcomer() {
      const browser = new Browser();
      const page = await browser.open(`${portal}/news`);
      return page.status === 200 ? browser.submit(page, "/password", ada) : page;
    },
    /** Asks for a page, and goes nowhere. */
    async visitor() {
      return new Browser().open(`${portal}/news`, { follow: false });
    },
    /** Envoy's way to the provider is closed, or open again. */
    async providerIs(reachable) {
      const most = reachable ? 1024 : 0;
      const url = `${demo.adminUrl}/runtime_modify?circuit_breakers.idp.default.max_requests=${most}`;
      const { ok, status } = await fetch(url, { method: "POST" });
      if (!ok) throw new Error(`runtime_modify: ${status}`);
    },
  };
}
