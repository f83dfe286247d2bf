import { casesHandler, startCases } from "./cases.js";
import plan from "./plan.json";
import { answer } from "./stepgate/web.js";
import { createGate } from "./stepgate/workerd.js";

const handle = casesHandler(startCases(plan, { createGate, answer }));

export default {
  fetch: (request, env, context) => handle(request, context),
};
