// Server-rendered HTML: an escaping template tag, the document around a page, and the headers it is sent with.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const css = readFileSync(new URL("style.css", import.meta.url), "utf8");
const cssHash = createHash("sha256").update(css).digest("base64");

class Html {
  constructor(text) {
    this.text = text;
  }
}

/** Everything put into the template is escaped, except what this tag itself made. */
export function html(strings, ...values) {
  return new Html(strings.reduce((text, part, i) => text + render(values[i - 1]) + part));
}

function render(value) {
  if (value instanceof Html) return value.text;
  if (Array.isArray(value)) return value.map(render).join("");
  if (value === undefined || value === null || value === false) return "";
  return String(value).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** Markup that another library made and has escaped itself. */
export const trusted = (markup) => new Html(markup);

export function document({ title, theme, body, script }) {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<link rel="icon" href="data:,">
<style>${trusted(css)}</style>
${script && html`<script src="${script}" defer></script>`}
</head>
<body class="${theme}">
${body}
</body>
</html>
`.text;
}

/** `scripts`: the site's own. `formTargets`: browsers also hold the redirects that follow a form against form-action. */
export function pageHeaders({ scripts = false, formTargets = [] } = {}) {
  return {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "content-security-policy": [
      "default-src 'none'",
      "img-src data:",
      `style-src 'sha256-${cssHash}'`,
      ...(scripts ? ["script-src 'self'", "connect-src 'self'"] : []),
      `form-action ${["'self'", ...formTargets].join(" ")}`,
      "frame-ancestors 'none'",
      "base-uri 'none'",
    ].join("; "),
  };
}
