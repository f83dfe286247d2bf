// What a person sees of the Acme portal. Each page also shows what the app knows of that person.

import { html } from "./html.mjs";
import { icons, intro, latestPayslip, messageCard, newsCard, payslipTable, portalPage, tile } from "./portal.mjs";

export function homePage({ user }) {
  return page({
    title: "Home", path: "/", user,
    body: html`
      ${intro(`Good day, ${user}`, "Everything at Acme, in one place.")}
      <div class="tiles">
        ${tile("/news", icons.news, "News", "What happened this week. Your password is enough.")}
        ${tile("/salary", icons.lock, "Salary", "Your payslips. The gate in front of the portal asks for a second factor.")}
        ${tile("/salary/bank-account", icons.bank, "Bank account", "Where your salary goes. Wants a login of the last minute as well.")}
        ${tile("/expenses", icons.receipt, "Expenses", "What you have spent. Soon to want a second factor: its rule only reports for now.")}
      </div>
      <section class="card stack">
        <div class="intro"><h2>Latest payslip</h2><p class="muted">The page fetches it in the background, and learns from the answer what is missing.</p></div>
        ${payslipLoader({ label: "Show my latest payslip here", count: 1 })}
      </section>`,
  });
}

export function newsPage({ user }) {
  return page({
    title: "News", path: "/news", user,
    body: html`${intro("News", "Readable by everyone who signed in with a password.")}${newsCard()}`,
  });
}

export function salaryPage({ user }) {
  return page({
    title: "Salary", path: "/salary", user,
    body: html`
      ${intro("Salary", "The app has no code that asks for a password or a second factor: this page opened because the gate let you through.")}
      <section class="card stack">
        ${latestPayslip()}
        <div class="actions">
          <a class="button" href="/salary/2026">All payslips of 2026</a>
          <a class="button quiet" href="/salary/bank-account">Change bank account</a>
        </div>
      </section>
      <section class="card stack">
        <h2>This year so far</h2>
        ${payslipLoader({ label: "Load payslips", count: 12 })}
      </section>`,
  });
}

export function payslipsPage({ user }) {
  return page({
    title: "Payslips 2026", path: "/salary", user,
    body: html`${intro("Payslips 2026", html`<a href="/salary">Back to the overview</a>`)}${payslipTable()}`,
  });
}

export function bankAccountPage({ user, iban = "DE89370400440532013000" }) {
  return page({
    title: "Bank account", path: "/salary", user,
    body: html`
      ${intro("Bank account", "The gate opens this page, and takes a change, only with a second factor and a login of the last minute.")}
      <section class="card stack">
        <dl class="figures"><div><dt>Your salary goes to</dt><dd>${iban.match(/.{1,4}/g).join(" ")}</dd></div></dl>
        <form method="post" action="/salary/bank-account" data-guarded>
          <div class="field">
            <label for="iban">New account (IBAN)</label>
            <input id="iban" name="iban" autocomplete="off" spellcheck="false" maxlength="42" required>
          </div>
          <div><button class="button">Save</button>${result}</div>
        </form>
      </section>`,
  });
}

export function expensesPage({ user, countersUrl }) {
  return page({
    title: "Expenses", path: "/expenses", user,
    body: html`
      ${intro("Expenses", "This page opens with a password alone. Its rule, in report mode, asks for a second factor: the gate notes what it would have done, and changes nothing.")}
      <section class="card stack">
        <h2>What the gate notes, as long as you have given no second factor</h2>
        <dl class="notes">
          <div><dt>A line in Envoy's log</dt><dd><code>stepgate: report only, rule expenses: amr_missing: …</code></dd></div>
          <div><dt>The access log</dt><dd><code>"status":200, "stepgate":"amr_missing", "stepgate_decision":"report", "stepgate_rule":"expenses"</code></dd></div>
          <div><dt>A counter</dt><dd><code>stepgate_rules{decision="report",reason="amr_missing",rule="expenses"}</code></dd></div>
        </dl>
        <p class="muted">The first two appear where the demo runs. Open Salary, give a code and come back: then nothing is left to report.</p>
        ${countersUrl && html`<div><a class="button quiet" href="${countersUrl}">What it has counted</a></div>`}
      </section>`,
  });
}

export function messagePage({ user, ...message }) {
  return page({ title: message.title, user, body: messageCard(message) });
}

function page(parts) {
  return portalPage({
    ...parts,
    script: "/portal.js",
    signOut: html`<a class="button quiet" href="/logout">Sign out</a>`,
    knows: html`<aside class="card knows">
      <div><h2>Signed in as ${parts.user}</h2><p class="muted small">What the app knows: the header <code>x-user-id</code>, nothing else.</p></div>
      <dl><div><dt>x-user-id</dt><dd>${parts.user}</dd></div></dl>
    </aside>`,
  });
}

/** portal.js loads the payslips, the newest `count` of them, when the button is pressed. */
const payslipLoader = ({ label, count }) => html`<div><button class="button" data-payslips="${count}">${label}</button>${result}</div>`;

/** Where portal.js says what came of it. */
const result = html`<div class="result" role="status"></div>`;
