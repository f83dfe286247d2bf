import { casesHandler, startCases } from "./cases.js";
import plan from "./plan.json";
import { createGate } from "./stepgate/workerd.js";

const handle = casesHandler(startCases(plan, createGate));

export default {
  fetch: (request, env, context) => handle(request, context),
};
