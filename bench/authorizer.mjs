// The authorizer that ext_authz asks: nginx, which says yes to everything, over a Unix socket, on the load generator's core,
// so that it takes nothing from Envoy's.

import { spawn } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

import { eventually } from "../tests/e2e/support/wait.mjs";
import { LOAD_CORE, pinned } from "./machine.mjs";

export async function startAuthorizer() {
  const directory = await mkdtemp(path.join(tmpdir(), "stepgate-authorizer-"));
  const socket = path.join(directory, "socket");
  await writeFile(path.join(directory, "nginx.conf"), `
    daemon off;
    master_process off;
    pid pid;
    error_log stderr crit;
    events { worker_connections 1024; }
    http {
      access_log off;
      keepalive_requests 1000000000;
      keepalive_timeout 1d;
      ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${name};`).join("\n")}
      server { listen unix:${socket}; return 200; }
    }
  `);
  const nginx = spawn(...pinned(LOAD_CORE, "nginx", ["-p", directory, "-c", "nginx.conf"]), { stdio: ["ignore", "ignore", "inherit"] });
  const end = () => {
    nginx.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  };
  process.once("exit", end);
  const exited = new Promise((resolve) => nginx.once("close", resolve));
  await eventually(10_000, "the authorizer listens", () => existsSync(socket));
  return {
    socket,
    async stop() {
      nginx.kill("SIGTERM");
      await exited;
      process.removeListener("exit", end);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
