// The same check by hand, with npm `jose`.

import config from "./config.json";
import { createLocalJWKSet, jwtVerify } from "./jose/index.js";

const keys = createLocalJWKSet(config.provider.jwks);
const { issuer } = config.provider;
const audience = config.client.id;

export default {
  async fetch(request, env) {
    if (new URL(request.url).pathname.startsWith("/salary/")) {
      const [, token] = /(?:^|; )id_token=([^;]*)/.exec(request.headers.get("cookie") ?? "") ?? [];
      try {
        const { payload } = await jwtVerify(token, keys, { issuer, audience, algorithms: ["RS256"] });
        if (!payload.amr?.includes("mfa")) throw new Error("no mfa");
      } catch {
        return Response.redirect(config.provider.authorization_endpoint, 302);
      }
    }
    return env.APP.fetch(request);
  },
};
