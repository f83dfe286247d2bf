// Which ports the demo needs, and whether they are free.

import { once } from "node:events";
import { createServer } from "node:net";

/** `variable` is what another port is given by: `make demo PORTAL_PORT=10001`. */
export const PORTS = {
  portal: { port: 10000, variable: "PORTAL_PORT", purpose: "Envoy, the address of the portal" },
  admin: { port: 9901, variable: "ADMIN_PORT", purpose: "Envoy's admin page and counters" },
  app: { port: 8081, variable: "APP_PORT", purpose: "the app behind Envoy" },
  provider: { port: 9400, variable: "PROVIDER_PORT", purpose: "the identity provider" },
};

export const DEFAULT_PORTS = Object.fromEntries(Object.entries(PORTS).map(([name, { port }]) => [name, port]));

/** What to tell the user about each port that is taken. */
export async function takenPorts(ports) {
  const reports = await Promise.all(Object.entries(PORTS).map(async ([name, { variable, purpose }]) => {
    const port = ports[name];
    if (await isFree(port)) return [];
    return [
      `Port ${port} is taken. The demo needs it for ${purpose}.`,
      `  Who holds it:      ss -ltnp 'sport = :${port}'    (or: lsof -nP -iTCP:${port} -sTCP:LISTEN)`,
      `  Another instead:   make demo ${variable}=${port + 1}`,
    ];
  }));
  return reports.flat();
}

/** Browsers may try `localhost` on ::1 first, so that must not be another program's either. */
export async function isFree(port) {
  for (const host of ["127.0.0.1", "::1"]) {
    if (!await canListen(port, host)) return false;
  }
  return true;
}

async function canListen(port, host) {
  const server = createServer().listen(port, host);
  try {
    await once(server, "listening");
  } catch (error) {
    return error.code !== "EADDRINUSE" && error.code !== "EACCES";
  }
  server.close();
  await once(server, "close");
  return true;
}
