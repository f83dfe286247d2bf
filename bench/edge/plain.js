export default { fetch: (request, env) => env.APP.fetch(request) };
