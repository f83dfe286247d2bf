// What each listener answers, before anything is timed: a fast filter that answers wrongly is no peer.

import assert from "node:assert/strict";

import { request } from "../tests/e2e/support/http.mjs";
import { LISTENERS, OPEN, PROTECTED, browserHeaders } from "./arrangements.mjs";
import { ISSUER, mint } from "./tokens.mjs";

export async function checkAnswers(envoy) {
  for (const [name, { checks, alg }] of Object.entries(LISTENERS)) {
    const tokens = {
      none: undefined,
      password: mint({ alg, claims: { amr: ["pwd"] } }),
      mfa: mint({ alg }),
      expired: mint({ alg, claims: { exp: Math.floor(Date.now() / 1000) - 3600 } }),
      forged: forged(mint({ alg })),
    };
    for (const [situation, status] of Object.entries(checks)) {
      const path = situation === "open" ? OPEN : PROTECTED;
      const { host, connection, ...headers } = browserHeaders(tokens[situation]);
      // Twice, since the second answer may come from a cache.
      for (const time of ["once", "again"]) {
        const answer = await request(envoy.port(name), { host, path, headers: Object.entries(headers) });
        assert.equal(answer.status, status, `${name} answers \`${situation}\` ${time}`);
        if (status === 302) assert.ok(answer.header("location").startsWith(`${ISSUER}authorize?`), `${name}: ${situation} leads to the provider`);
        if (status === 200) assert.equal(answer.text(), "ok");
      }
    }
  }
}

/** Another person's claims under the same signature. */
function forged(token) {
  const [header, payload, signature] = token.split(".");
  const claims = { ...JSON.parse(Buffer.from(payload, "base64url")), sub: "auth0|somebody-else" };
  return [header, Buffer.from(JSON.stringify(claims)).toString("base64url"), signature].join(".");
}
