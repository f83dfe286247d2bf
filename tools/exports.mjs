// What the Envoy module exports. The SDK exports every callback there is, and Envoy calls whatever is exported, for each
// request, whether it does anything or not.

export const EXPORTS = [
  'memory', '_initialize', 'proxy_abi_version_0_2_1', 'proxy_on_memory_allocate', 'proxy_on_context_create', 'proxy_on_delete',
  'proxy_on_vm_start', 'proxy_on_configure', 'proxy_on_tick', 'proxy_on_http_call_response', 'proxy_on_request_headers',
  'proxy_on_request_body', 'proxy_on_request_trailers', 'proxy_on_response_headers',
];
