// The Acme portal: an app without a login. The gate in front of it tells who is there, in the header `x-user-id`.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

import { bankAccountPage, expensesPage, homePage, messagePage, newsPage, payslipsPage, salaryPage } from "./app-pages.mjs";
import { FormTooLarge, readForm } from "./form.mjs";
import { pageHeaders } from "./html.mjs";
import { failed, noSuchPage, notLikeThis, payslips } from "./portal.mjs";

const BANK_ACCOUNT = "/salary/bank-account";
const IBAN = /^[A-Z]{2}\d{2}[A-Z\d]{11,30}$/;

const script = readFileSync(new URL("portal.js", import.meta.url));
const headers = pageHeaders({ scripts: true });

const pages = new Map([
  ["/", homePage],
  ["/news", newsPage],
  ["/salary", salaryPage],
  ["/salary/2026", payslipsPage],
  [BANK_ACCOUNT, bankAccountPage],
  ["/expenses", expensesPage],
]);

const nobody = {
  title: "Nobody is there",
  text: "No header says who you are: this request did not come through the gate.",
  links: [["Home", "/"]],
};
const noIban = {
  title: "That is no IBAN", text: "Nothing has changed.", links: [["Back", BANK_ACCOUNT], ["Home", "/"]],
};

/** Listens on 127.0.0.1. `onRequest` is told of every request; `countersUrl` is where the gate's counters are. */
export async function startApp({ port = 8081, countersUrl, onRequest = () => {} } = {}) {
  const ibans = new Map();

  // Envoy keeps connections for longer than Node does by default: one that closes as Envoy uses it again is a 503.
  const server = createServer({ keepAliveTimeout: 0 }, (request, response) => {
    onRequest({ path: request.url, headers: request.headers });
    handle(request, response).catch((error) => {
      if (error instanceof FormTooLarge) return send(response, error.status, messagePage(notLikeThis));
      console.error("portal:", error);
      send(response, 500, messagePage(failed));
    });
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");

  async function handle(request, response) {
    const [path] = request.url.split("?", 1);
    const user = request.headers["x-user-id"];
    if (request.method === "POST" && path === BANK_ACCOUNT && user) return changeBankAccount(request, response, user);
    if (request.method !== "GET" && request.method !== "HEAD") {
      return send(response, 405, messagePage({ ...notLikeThis, user }));
    }
    if (path === "/portal.js") return response.writeHead(200, { "content-type": "text/javascript" }).end(script);
    if (!user) return send(response, 403, messagePage(nobody));
    if (path === "/salary/payslips.json") {
      response.writeHead(200, { "content-type": "application/json", "cache-control": "no-store" });
      return response.end(JSON.stringify(payslips));
    }
    const page = pages.get(path);
    if (!page) return send(response, 404, messagePage({ ...noSuchPage, user }));
    send(response, 200, page({ user, iban: ibans.get(user), countersUrl }));
  }

  async function changeBankAccount(request, response, user) {
    const iban = (await readForm(request)).get("iban")?.replaceAll(" ", "").toUpperCase() ?? "";
    if (!IBAN.test(iban)) return send(response, 422, messagePage({ ...noIban, user }));
    ibans.set(user, iban);
    response.writeHead(303, { location: BANK_ACCOUNT, "cache-control": "no-store" }).end();
  }

  function send(response, status, page) {
    response.writeHead(status, headers).end(page);
  }

  return {
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}
