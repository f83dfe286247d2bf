// What a person sees of the identity provider.

import { document, html, trusted } from "./html.mjs";

export function passwordPage({ uid, clientName, username, error, secondFactor, demoUser }) {
  return page("Sign in", html`
    ${secondFactor && steps("password")}
    <div class="heading"><h1>Sign in</h1><p class="muted">to continue to ${clientName}</p></div>
    ${error && alert(error)}
    <form method="post" action="/interaction/${uid}/password">
      <div class="field">
        <label for="username">User name</label>
        <input id="username" name="username" value="${username}" autocomplete="username" autocapitalize="none" spellcheck="false" required ${focus(!username)}>
      </div>
      <div class="field">
        <label for="password">Password</label>
        <input id="password" name="password" type="password" autocomplete="current-password" required ${focus(username)} ${invalid(error)}>
      </div>
      <button class="button">Continue</button>
    </form>
    ${cancel(uid)}
    <p class="note">This is a demo. Sign in as <code>${demoUser.username}</code> with the password <code>${demoUser.password}</code>.</p>`);
}

export function codePage({ uid, clientName, name, error }) {
  return page("Enter your code", html`
    ${steps("code")}
    <div class="heading"><h1>Confirm that it is you</h1>
      <p class="muted">${clientName} asks for a second factor. Enter the 6-digit code of ${name}’s authenticator.</p></div>
    ${error && alert(error)}
    <form method="post" action="/interaction/${uid}/code">
      <div class="field">
        <label for="code">One-time code</label>
        <input class="code" id="code" name="code" inputmode="numeric" autocomplete="one-time-code" maxlength="7" required ${focus(true)} ${invalid(error)}>
      </div>
      <button class="button">Confirm</button>
    </form>
    ${cancel(uid)}
    <p class="note">This demo has no phone: the code is printed in the terminal where <code>make demo</code> runs.</p>`);
}

export function messagePage({ title, text, client }) {
  return page(title, html`
    <div class="heading"><h1>${title}</h1>${text && html`<p class="muted">${text}</p>`}</div>
    <div class="actions"><a class="button" href="${client.url}">Go to ${client.name}</a></div>`);
}

/** `form` is the provider library's own, with its protection against forged requests in it. */
export function signOutPage({ form }) {
  return page("Sign out", html`
    <div class="heading"><h1>Sign out of Acme ID too?</h1>
      <p class="muted">The portal has signed you out. While you stay signed in here, it signs you in again without asking.</p></div>
    ${trusted(form)}
    <div class="actions">
      <button class="button" form="op.logoutForm" name="logout" value="yes">Yes, sign out</button>
      <button class="button quiet" form="op.logoutForm">Stay signed in</button>
    </div>`);
}

function page(title, body) {
  return document({
    title: `${title} · Acme ID`,
    theme: "identity",
    body: html`<main>
      <span class="brand">${shield} Acme ID</span>
      <div class="card">${body}</div>
      <p class="muted small">The identity provider of the Stepgate demo</p>
    </main>`,
  });
}

function steps(current) {
  return html`<ol class="steps" aria-label="Steps">
    <li ${trusted(current === "password" ? 'aria-current="step"' : 'class="done"')}>1. Password</li>
    <li ${trusted(current === "code" ? 'aria-current="step"' : "")}>2. One-time code</li>
  </ol>`;
}

function cancel(uid) {
  return html`<form method="post" action="/interaction/${uid}/cancel"><button class="button link">Cancel</button></form>`;
}

const alert = ([what, left]) => html`<p class="error" role="alert" id="error">${what}<br>${left}</p>`;
const focus = (here) => trusted(here ? "autofocus" : "");
const invalid = (error) => trusted(error ? 'aria-invalid="true" aria-describedby="error"' : "");

const shield = html`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d="M12 3l8 3v6c0 4.5-3.2 7.8-8 9-4.8-1.2-8-4.5-8-9V6z"/><path d="M8.5 12l2.5 2.5 4.5-5"/></svg>`;
