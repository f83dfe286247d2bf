// What a person sees of the Acme portal. Each page also shows what the app knows: the claims of the token it got.

import { document, html, trusted } from "./html.mjs";

export function homePage({ claims }) {
  return page({
    title: "Home", path: "/", claims,
    body: html`
      <div class="intro"><h1>Good day, ${claims.sub}</h1><p class="muted">Everything at Acme, in one place.</p></div>
      <div class="tiles">
        <a class="card tile" href="/news">${icons.news}<h2>News</h2><p class="muted">What happened this week. Your password is enough.</p></a>
        <a class="card tile" href="/salary">${icons.lock}<h2>Salary</h2><p class="muted">Your payslips. The gate in front of the portal asks for a second factor.</p></a>
      </div>`,
  });
}

export function newsPage({ claims }) {
  return page({
    title: "News", path: "/news", claims,
    body: html`
      <div class="intro"><h1>News</h1><p class="muted">Readable by everyone who signed in with a password.</p></div>
      <section class="card">
        ${news.map(({ day, title, text }) => html`<article><p class="muted small">${day}</p><h2>${title}</h2><p>${text}</p></article>`)}
      </section>`,
  });
}

export function salaryPage({ claims }) {
  const latest = payslips.at(-1);
  return page({
    title: "Salary", path: "/salary", claims,
    body: html`
      <div class="intro"><h1>Salary</h1><p class="muted">The app itself has no code that asks for a second factor: this page opened because the gate let you through.</p></div>
      <section class="card stack">
        <h2>${latest.month} 2026</h2>
        <dl class="figures">
          <div><dt>Gross</dt><dd>${money(latest.gross)}</dd></div>
          <div><dt>Taxes</dt><dd>${money(latest.gross - latest.net)}</dd></div>
          <div><dt>Net</dt><dd>${money(latest.net)}</dd></div>
        </dl>
        <div class="actions"><a class="button" href="/salary/2026">All payslips of 2026</a></div>
      </section>`,
  });
}

export function payslipsPage({ claims }) {
  return page({
    title: "Payslips 2026", path: "/salary", claims,
    body: html`
      <div class="intro"><h1>Payslips 2026</h1><p><a href="/salary">Back to the overview</a></p></div>
      <section class="card scroll">
        <table>
          <caption>Monthly pay</caption>
          <thead><tr><th scope="col">Month</th><th scope="col">Gross</th><th scope="col">Taxes</th><th scope="col">Net</th></tr></thead>
          <tbody>${payslips.map(({ month, gross, net }) => html`<tr><td>${month}</td><td>${money(gross)}</td><td>${money(gross - net)}</td><td>${money(net)}</td></tr>`)}</tbody>
        </table>
      </section>`,
  });
}

export function messagePage({ title, text, claims, links }) {
  return page({
    title, claims,
    body: html`<section class="card stack">
      <div class="intro"><h1>${title}</h1><p class="muted">${text}</p></div>
      <div class="actions">${links.map(([label, href], i) => html`<a class="button${i ? " quiet" : ""}" href="${href}">${label}</a>`)}</div>
    </section>`,
  });
}

function page({ title, path, claims, body }) {
  const link = (to, label, icon) => html`<a href="${to}" ${trusted(path === to ? 'aria-current="page"' : "")}>${icon}${label}</a>`;
  return document({
    title: `${title} · Acme Portal`,
    theme: "portal",
    body: html`
      <header class="topbar"><div>
        <a class="brand" href="/">${icons.logo} Acme Portal</a>
        <nav aria-label="Main">${link("/", "Home")}${link("/news", "News")}${link("/salary", "Salary", icons.lock)}</nav>
        ${claims && html`<form method="post" action="/logout">
          <span class="avatar" aria-hidden="true">${claims.sub.slice(0, 1)}</span>
          <button class="button quiet">Sign out</button>
        </form>`}
      </div></header>
      <main>${claims ? html`<div class="columns"><div class="stack">${body}</div>${knows(claims)}</div>` : body}</main>`,
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

const euros = new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR", maximumFractionDigits: 0 });
const money = (amount) => euros.format(amount);

const news = [
  {
    day: "Tuesday",
    title: "The canteen has a new oven",
    text: "Pizza returns on Thursday. Bring your own opinions on pineapple.",
  },
  {
    day: "Monday",
    title: "Payslips have moved",
    text: "They live under Salary now. Have your authenticator at hand.",
  },
  {
    day: "Friday",
    title: "Analytical Engine, week 9",
    text: "The mill runs, the store holds a thousand numbers, and nobody has spilled tea on it yet.",
  },
];

const payslips = ["January", "February", "March", "April", "May", "June"].map((month, i) => (
  i < 3 ? { month, gross: 6150, net: 3902 } : { month, gross: 6400, net: 4031 }
));

const icon = (paths) => html`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${trusted(paths)}</svg>`;
const icons = {
  logo: icon('<path d="M12 3l9 16H3z"/><path d="M8 13h8"/>'),
  news: icon('<path d="M4 5h13v14H6a2 2 0 0 1-2-2z"/><path d="M17 9h3v8a2 2 0 0 1-2 2"/><path d="M8 9h5M8 13h5"/>'),
  lock: icon('<rect x="5" y="11" width="14" height="9" rx="2"/><path d="M8 11V8a4 4 0 0 1 8 0v3"/>'),
};
