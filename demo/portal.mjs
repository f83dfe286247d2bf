// What both apps of the demo show: the frame around each page, the news and the payslips.

import { document, html, trusted } from "./html.mjs";

/** `signOut` is the button or link for it, `knows` a column beside the page; both only where `user` is signed in. */
export function portalPage({ title, path, user, signOut, knows, body, script }) {
  const link = (to, label, icon) => html`<a href="${to}" ${trusted(path === to ? 'aria-current="page"' : "")}>${icon}${label}</a>`;
  return document({
    title: `${title} · Acme Portal`,
    theme: "portal",
    script,
    body: html`
      <header class="topbar"><div>
        <a class="brand" href="/">${icons.logo} Acme Portal</a>
        <nav aria-label="Main">${link("/", "Home")}${link("/news", "News")}${link("/salary", "Salary", icons.lock)}</nav>
        ${user && html`<div class="account"><span class="avatar" aria-hidden="true">${user.slice(0, 1)}</span>${signOut}</div>`}
      </div></header>
      <main>${user ? html`<div class="columns"><div class="stack">${body}</div>${knows}</div>` : body}</main>`,
  });
}

export const intro = (title, text) => html`<div class="intro"><h1>${title}</h1><p class="muted">${text}</p></div>`;

export const tile = (href, icon, title, text) => (
  html`<a class="card tile" href="${href}">${icon}<h2>${title}</h2><p class="muted">${text}</p></a>`
);

export function newsCard() {
  return html`<section class="card">
    ${news.map(({ day, title, text }) => html`<article><p class="muted small">${day}</p><h2>${title}</h2><p>${text}</p></article>`)}
  </section>`;
}

export function latestPayslip() {
  const { month, gross, net } = payslips.at(-1);
  return html`<h2>${month} 2026</h2>
    <dl class="figures">
      <div><dt>Gross</dt><dd>${money(gross)}</dd></div>
      <div><dt>Taxes</dt><dd>${money(gross - net)}</dd></div>
      <div><dt>Net</dt><dd>${money(net)}</dd></div>
    </dl>`;
}

export function payslipTable() {
  return html`<section class="card scroll">
    <table>
      <caption>Monthly pay</caption>
      <thead><tr><th scope="col">Month</th><th scope="col">Gross</th><th scope="col">Taxes</th><th scope="col">Net</th></tr></thead>
      <tbody>${payslips.map(({ month, gross, net }) => html`<tr><td>${month}</td><td>${money(gross)}</td><td>${money(gross - net)}</td><td>${money(net)}</td></tr>`)}</tbody>
    </table>
  </section>`;
}

export function messageCard({ title, text, links }) {
  return html`<section class="card stack">
    ${intro(title, text)}
    <div class="actions">${links.map(([label, href], i) => html`<a class="button${i ? " quiet" : ""}" href="${href}">${label}</a>`)}</div>
  </section>`;
}

export const noSuchPage = { title: "No such page", text: "It may have moved.", links: [["Home", "/"]] };
export const notLikeThis = { title: "Not like this", text: "That is not how this page is used.", links: [["Home", "/"]] };
export const failed = {
  title: "Something went wrong", text: "It is not your fault. Try again in a moment.", links: [["Home", "/"]],
};

const euros = new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR", maximumFractionDigits: 0 });
const money = (amount) => euros.format(amount);

export const payslips = ["January", "February", "March", "April", "May", "June"].map((month, i) => (
  i < 3 ? { month, gross: 6150, net: 3902 } : { month, gross: 6400, net: 4031 }
));

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

const icon = (paths) => html`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${trusted(paths)}</svg>`;
export const icons = {
  logo: icon('<path d="M12 3l9 16H3z"/><path d="M8 13h8"/>'),
  news: icon('<path d="M4 5h13v14H6a2 2 0 0 1-2-2z"/><path d="M17 9h3v8a2 2 0 0 1-2 2"/><path d="M8 9h5M8 13h5"/>'),
  lock: icon('<rect x="5" y="11" width="14" height="9" rx="2"/><path d="M8 11V8a4 4 0 0 1 8 0v3"/>'),
  receipt: icon('<path d="M6 3h12v18l-3-2-3 2-3-2-3 2z"/><path d="M9 8h6M9 12h6"/>'),
  bank: icon('<path d="M3 10l9-6 9 6z"/><path d="M6 10v8M10 10v8M14 10v8M18 10v8M3 20h18"/>'),
};
