// What a person sees of the Acme portal. Each page also shows what the app knows: the claims of the token it got.

import { html } from "../html.mjs";
import { icons, intro, latestPayslip, messageCard, newsCard, payslipTable, portalPage, tile } from "../portal.mjs";

export function homePage({ claims }) {
  return page({
    title: "Home", path: "/", claims,
    body: html`
      ${intro(`Good day, ${claims.sub}`, "Everything at Acme, in one place.")}
      <div class="tiles">
        ${tile("/news", icons.news, "News", "What happened this week. Your password is enough.")}
        ${tile("/salary", icons.lock, "Salary", "Your payslips. The gate in front of the portal asks for a second factor.")}
      </div>`,
  });
}

export function newsPage({ claims }) {
  return page({
    title: "News", path: "/news", claims,
    body: html`${intro("News", "Readable by everyone who signed in with a password.")}${newsCard()}`,
  });
}

export function salaryPage({ claims }) {
  return page({
    title: "Salary", path: "/salary", claims,
    body: html`
      ${intro("Salary", "The app itself has no code that asks for a second factor: this page opened because the gate let you through.")}
      <section class="card stack">
        ${latestPayslip()}
        <div class="actions"><a class="button" href="/salary/2026">All payslips of 2026</a></div>
      </section>`,
  });
}

export function payslipsPage({ claims }) {
  return page({
    title: "Payslips 2026", path: "/salary", claims,
    body: html`${intro("Payslips 2026", html`<a href="/salary">Back to the overview</a>`)}${payslipTable()}`,
  });
}

export function messagePage({ claims, ...message }) {
  return page({ title: message.title, claims, body: messageCard(message) });
}

function page({ claims, ...parts }) {
  return portalPage({
    ...parts,
    user: claims?.sub,
    signOut: html`<form method="post" action="/logout"><button class="button quiet">Sign out</button></form>`,
    knows: claims && knows(claims),
  });
}

function knows({ sub, amr, acr, auth_time: authTime, exp }) {
  return html`<aside class="card knows">
    <div><h2>What the app knows</h2><p class="muted small">From the ID Token in your cookie</p></div>
    <dl>
      <div><dt>sub</dt><dd>${sub}</dd></div>
      <div><dt>amr</dt><dd class="badges">${amr
        ? amr.map((method) => html`<span class="badge${method === "mfa" && " strong"}">${method}</span>`)
        : html`<span class="badge none">absent: password only</span>`}</dd></div>
      <div><dt>acr</dt><dd>${acr ? html`<code>${acr}</code>` : html`<span class="badge none">absent</span>`}</dd></div>
      <div><dt>auth_time</dt><dd>${clock(authTime)}</dd></div>
      <div><dt>exp</dt><dd>${clock(exp)}</dd></div>
    </dl>
  </aside>`;
}

function clock(seconds) {
  return seconds ? new Date(seconds * 1000).toISOString().replace("T", " ").replace(".000Z", " UTC") : "absent";
}
