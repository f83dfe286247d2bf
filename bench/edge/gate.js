import config from "./config.json";
import { createGate, protect } from "./stepgate/worker";

export default protect((env) => createGate({ config, env }), (request, env) => env.APP.fetch(request));
