// Node's adapter leaves an app's answers as they are, in whichever form the app gives its fields, and adds its own.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";

import { createGate, protect } from "../../dist/edge/node.js";
import { cookie, inlineGate } from "./support/gate.mjs";
import { request } from "./support/http.mjs";
import { mint } from "./support/tokens.mjs";

/** How an app may answer. */
const FORMS = {
  "a status": (response) => response.writeHead(201),
  "a status and its text": (response) => response.writeHead(201, "Made"),
  "an object": (response) => response.writeHead(201, { "X-Custom": "1", "x-number": 5 }),
  "an object, and a text": (response) => response.writeHead(201, "Made", { "x-custom": "1" }),
  "an object with lists": (response) => response.writeHead(201, { "set-cookie": ["a=1", "b=2"], "x-list": ["1", "2"] }),
  "a flat list": (response) => response.writeHead(201, ["x-custom", "1", "x-custom", "2", "X-Other", "3"]),
  "a flat list, and a text": (response) => response.writeHead(201, "Made", ["x-custom", "1"]),
  "a flat list with lists": (response) => response.writeHead(201, ["set-cookie", ["a=1", "b=2"], "x-custom", "1"]),
  "a list of pairs": (response) => response.writeHead(201, [["x-custom", "1"], ["x-custom", "2"]]),
  "a list of pairs with lists": (response) => response.writeHead(201, [["set-cookie", ["a=1", "b=2"]]]),
  "an empty list": (response) => response.writeHead(201, []),
  "nothing, last": (response) => response.writeHead(201, undefined),
  "a text, and nothing": (response) => response.writeHead(201, "Made", undefined),
  "nothing, and an object": (response) => response.writeHead(201, undefined, { "x-custom": "1" }),
  "null, last": (response) => response.writeHead(201, "Made", null),
  "what is set before": (response) => response.setHeader("x-custom", "0").setHeader("set-cookie", ["a=1", "b=2"]),
  "an object over what is set before": (response) => response.setHeader("x-custom", "0").writeHead(201, { "X-Custom": ["1", "2"] }),
  "a flat list over what is set before": (response) => response.setHeader("x-custom", "0").writeHead(201, ["x-custom", "1"]),
  "a vary of its own": (response) => response.writeHead(201, { vary: "Accept" }),
  "a vary of its own, set before": (response) => response.setHeader("vary", "Accept").writeHead(201, ["x-custom", "1"]),
  "a head of its own, sent at once": (response) => { response.setHeader("x-custom", "1"); response.flushHeaders(); },
  "a list that is no pairs": (response) => response.writeHead(201, ["x-custom"]),
  "a value that is none": (response) => response.writeHead(201, { "x-custom": undefined }),
  "a value that cannot be sent": (response) => response.writeHead(201, { "x-custom": "a\nb" }),
};

describe("an app's answer in Node", () => {
  const servers = {};
  let gate;

  before(async () => {
    gate = await createGate({ config: inlineGate() });
    const app = ({ url }, response) => {
      response.sendDate = false;
      try {
        FORMS[decodeURIComponent(url.split("?")[1])](response);
        response.end("made");
      } catch (error) {
        response.destroy(error);
      }
    };
    servers.plain = createServer(app);
    servers.gated = protect(gate, app).attach(createServer());
    for (const server of Object.values(servers)) await once(server.listen(0, "127.0.0.1"), "listening");
  });
  after(async () => {
    for (const server of Object.values(servers)) {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    }
    gate.close();
  });

  const answered = async (name, what) => {
    const options = { path: `/salary?${encodeURIComponent(what)}`, headers: [cookie(mint()), ["connection", "close"]] };
    const answer = await request(servers[name].address().port, options).catch(() => undefined);
    return answer && { status: answer.status, headers: answer.headers.toSorted(), text: answer.text() };
  };

  for (const what of Object.keys(FORMS)) {
    test(what, async () => {
      const [plain, gated] = [await answered("plain", what), await answered("gated", what)];
      if (plain) plain.headers = [...plain.headers, ["vary", "Cookie"]].toSorted();
      assert.deepEqual(gated, plain);
    });
  }
});
