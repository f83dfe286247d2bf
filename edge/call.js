// Calls to the provider.

/**
 * Makes a call: an HTTP answer, or the name of what went wrong. Never rejects. Redirects are not followed.
 *
 * @returns {Promise<{ status: number, body: Uint8Array, failure?: undefined } | { failure: string }>}
 */
export async function call(fetch, { url, form, authorization, timeout, maxBytes }) {
  const controller = new AbortController();
  const headers = { accept: "application/json", "accept-encoding": "identity" };
  if (form) headers["content-type"] = "application/x-www-form-urlencoded";
  if (authorization) headers.authorization = authorization;
  const init = {
    method: form ? "POST" : "GET", headers, redirect: "manual", signal: controller.signal, ...(form && { body: form }),
  };
  try {
    return await within(timeout, answer(fetch, url, init, maxBytes)) ?? { failure: "timeout" };
  } finally {
    controller.abort(); // what nobody reads any more
  }
}

async function answer(fetch, url, init, maxBytes) {
  let response;
  try {
    response = await fetch(url, init);
  } catch {
    return { failure: "unreachable" };
  }
  try {
    const body = await read(response.body, maxBytes);
    return body ? { status: response.status, body } : { failure: "too_large" };
  } catch {
    return { failure: "reset" };
  }
}

/** What a promise brings within so many milliseconds; nothing after that. */
export async function within(milliseconds, promise) {
  let timer;
  const late = new Promise((resolve) => { timer = setTimeout(resolve, milliseconds); });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * All of a stream; nothing when it has more than so many bytes.
 *
 * @param {ReadableStream<Uint8Array> | null} stream
 */
export async function read(stream, maxBytes) {
  if (!stream) return new Uint8Array();
  const chunks = [];
  let length = 0;
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > maxBytes) {
      reader.cancel().catch(() => {});
      return undefined;
    }
    chunks.push(value);
  }
  return joined(chunks, length);
}

/** Chunks of so many bytes altogether, in one. */
export function joined(chunks, length) {
  const whole = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
