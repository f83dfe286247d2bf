// `make demo`: starts everything, says what to try, prints what the gate decides, and stops everything on Ctrl-C.

import { once } from "node:events";
import { styleText } from "node:util";

import { DemoError } from "./demo-error.mjs";
import { PORTS } from "./ports.mjs";
import { DEMO_USER } from "./provider.mjs";
import { startDemo } from "./stack.mjs";

const colour = process.stdout.isTTY && !process.env.NO_COLOR;
const style = (format, text) => (colour ? styleText(format, text) : text);

const stopped = new AbortController();
const interrupted = once(stopped.signal, "abort");
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(name, () => stopped.abort());

const meanings = {
  302: ["yellow", "sent to the provider"],
  401: ["yellow", "told what is missing"],
};

try {
  const demo = await startDemo({
    envoy: process.env.ENVOY,
    wasm: process.env.STEPGATE_WASM,
    ports: chosenPorts(),
    signal: stopped.signal,
    onCodeWanted: ({ user, code, remaining }) => say(`${style(["bold", "yellow"], `one-time code for ${user}: ${code}`)}  (a new one in ${remaining} s)`),
    onAccess: (entry) => say(decisionLine(entry)),
  });
  console.log(welcome(demo));
  const end = await Promise.race([interrupted.then(() => undefined), demo.envoyExited]);
  await demo.stop();
  if (end) {
    console.error(`\nEnvoy ${end.reason}. Its last words:\n${end.lastLines.map((line) => `  ${line}`).join("\n")}`);
    process.exitCode = 1;
  } else {
    console.log("\nStopped: Envoy, app and provider.");
  }
} catch (error) {
  if (!stopped.signal.aborted) {
    console.error(error instanceof DemoError ? error.message : error);
    process.exitCode = 1;
  }
}

function chosenPorts() {
  return Object.fromEntries(Object.entries(PORTS).map(([name, { port, variable }]) => {
    const chosen = Number(process.env[variable] || port);
    if (!Number.isInteger(chosen) || chosen < 1 || chosen > 65535) throw new DemoError(`${variable} must be a port, 1 to 65535.`);
    return [name, chosen];
  }));
}

function welcome({ publicUrl, adminUrl, provider }) {
  const heading = (text) => style("bold", text);
  return `
${heading("Stepgate demo")}   the portal asks for a password; its salary pages ask for a second factor

  Portal      ${style("cyan", `${publicUrl}/`)}   Envoy with Stepgate, the app behind it
  Provider    ${style("cyan", provider.issuer)}
  Counters    ${style("cyan", `${adminUrl}/stats?filter=stepgate`)}

  User        ${DEMO_USER.username}
  Password    ${DEMO_USER.password}
  Code        ${provider.totp()}   changes every 30 s; printed here again whenever the provider asks for it

${heading("Try")}
  1. Open ${style("cyan", `${publicUrl}/news`)} and sign in: the password is enough.
  2. Open Salary: the gate sends you to the provider for a code, and back.
  3. Look at "What the app knows": the new token's amr has mfa, and the app has no code that asks for it.

  curl -i ${publicUrl}/salary                                  a browser: 302 to the provider
  curl -i -H 'Accept: application/json' ${publicUrl}/salary    an API client: 401 and what is missing
  curl -s '${adminUrl}/stats?filter=stepgate_decisions'

Ctrl-C stops everything. What the gate decides:
`;
}

function decisionLine({ method, path, status, details, stepgate: reason }) {
  const request = `${method ?? "-"} ${path ?? "-"}`;
  if (!reason) {
    return style("dim", `${request}  ${status}  ${details === "via_upstream" ? "no rule" : `by Envoy itself: ${details}`}`);
  }
  const [tint, meaning] = reason === "satisfied" ? ["green", "let through"] : meanings[status] ?? ["red", "refused"];
  return `${request}  ${style(tint, String(status))}  ${style("bold", reason)}, ${meaning}`;
}

function say(text) {
  console.log(`${style("dim", new Date().toTimeString().slice(0, 8))}  ${text}`);
}
