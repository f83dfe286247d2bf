import config from "./config.json";
import { startProbe } from "./probe.js";
import { createGate } from "./stepgate/workerd.js";

const probe = startProbe(createGate, config);

export default {
  fetch: (request, env, context) => probe.handle(request, context),
};
