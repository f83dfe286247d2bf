// `make demo`: starts everything, says what to try, prints what the gate decides, and stops everything on Ctrl-C.
// The argument names the app behind the gate: `portal`, which has no login, or `own-login`.

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
  satisfied: ["green", "let through"],
  login_completed: ["green", "signed in"],
  logged_out: ["green", "signed out"],
  302: ["yellow", "sent to the provider"],
  401: ["yellow", "told what is missing"],
};

const tours = {
  portal: {
    summary: "the portal has no login: the gate asks for a password and, where a rule says so, for a second factor",
    steps: [
      "Open News and sign in: the password is enough.",
      'On Home, press "Show my latest payslip here". The request in the background gets a 401 that says where to confirm\n'
        + "that it is you. Do so: the gate sends you to the provider for a code, and back to Home. Press again.",
      "Open Salary: no question now. The app has no code for any of this; it sees a header with your user name.",
      "Wait a minute and open Bank account: that page wants a login that is fresh.",
      "Expenses has a rule in report mode. Sign out, open it and sign in: the page opens with the password alone, and the\n"
        + "gate tells what it would have asked for, in Envoy's log, in the access log and in a counter.",
      "Sign out: of the portal, and of the provider if you like.",
    ],
  },
  "own-login": {
    summary: "the portal asks for a password by itself; its salary pages ask for a second factor",
    steps: [
      "Open News and sign in: the password is enough.",
      "Open Salary: the gate sends you to the provider for a code, and back.",
      'Look at "What the app knows": the new token\'s amr has mfa, and the app has no code that asks for it.',
    ],
  },
};

try {
  const [,, app = "portal"] = process.argv;
  const demo = await startDemo({
    app,
    envoy: process.env.ENVOY,
    wasm: process.env.STEPGATE_WASM,
    ports: chosenPorts(),
    signal: stopped.signal,
    onCodeWanted: ({ user, code, remaining }) => say(`${style(["bold", "yellow"], `one-time code for ${user}: ${code}`)}  (a new one in ${remaining} s)`),
    onAccess: (entry) => say(decisionLine(entry)),
    onLog: (line) => line.includes("stepgate: report only") && say(style("magenta", line.slice(line.indexOf("stepgate:")))),
  });
  console.log(welcome(tours[app], demo));
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

function welcome({ summary, steps }, { publicUrl, adminUrl, countersUrl, provider }) {
  const heading = (text) => style("bold", text);
  return `
${heading("Stepgate demo")}   ${summary}

  Portal      ${style("cyan", `${publicUrl}/`)}   Envoy with Stepgate, the app behind it
  Provider    ${style("cyan", provider.issuer)}
  Counters    ${style("cyan", `${adminUrl}/stats?filter=stepgate`)}
  By rule     ${style("cyan", countersUrl)}

  User        ${DEMO_USER.username}
  Password    ${DEMO_USER.password}
  Code        ${provider.totp()}   changes every 30 s; printed here again whenever the provider asks for it

${heading("Try")}
${steps.map((step, i) => `  ${i + 1}. ${step.replaceAll("\n", "\n     ")}`).join("\n")}

  curl -i ${publicUrl}/salary                                  a browser: 302 to the provider
  curl -i -H 'Accept: application/json' ${publicUrl}/salary    an API client: 401 and what is missing
  curl -s '${adminUrl}/stats?filter=stepgate_decisions'

Ctrl-C stops everything. What the gate decides:
`;
}

function decisionLine({ method, path, status, details, stepgate: reason, stepgate_decision: decision, stepgate_rule: rule }) {
  const request = `${method ?? "-"} ${path ?? "-"}`;
  if (!reason) {
    return style("dim", `${request}  ${status}  ${details === "via_upstream" ? "no rule" : `by Envoy itself: ${details}`}`);
  }
  if (decision === "report") return `${request}  ${style("magenta", String(status))}  ${style("bold", reason)}, let through: ${rule} only reports`;
  const [tint, meaning] = meanings[reason] ?? meanings[status] ?? ["red", "refused"];
  return `${request}  ${style(tint, String(status))}  ${style("bold", reason)}, ${meaning}`;
}

function say(text) {
  console.log(`${style("dim", new Date().toTimeString().slice(0, 8))}  ${text}`);
}
