// Reads a posted form.

const MAX_BYTES = 4096;

/** Koa answers with `status`, and so does the portal. */
export class FormTooLarge extends Error {
  status = 413;
}

export async function readForm(request) {
  request.setEncoding("utf8");
  let text = "";
  for await (const chunk of request) {
    text += chunk;
    if (text.length > MAX_BYTES) throw new FormTooLarge();
  }
  return new URLSearchParams(text);
}
