// The portal's script in the browser. Where the gate refuses a request it says where the person can confirm who they are;
// the page offers that as a link, and the gate leads back to this page.

const euros = new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR", maximumFractionDigits: 0 });

for (const button of document.querySelectorAll("[data-payslips]")) {
  const result = button.nextElementSibling;
  button.addEventListener("click", async () => {
    const response = await ask(result, "/salary/payslips.json");
    if (!response) return;
    const payslips = await response.json();
    result.replaceChildren(figures(payslips.slice(-button.dataset.payslips).reverse()));
  });
}

for (const form of document.querySelectorAll("form[data-guarded]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form));
    const response = await ask(form.querySelector(".result"), form.action, { method: form.method, body });
    if (response) location.assign(response.url);
  });
}

/** The response or, where it is a refusal, nothing: then the page says what the person can do. */
async function ask(result, ...request) {
  const response = await fetch(...request).catch(() => undefined);
  if (response?.ok) return response;
  const refusal = response?.status === 401 && await response.json();
  result.replaceChildren(...(refusal?.step_up_url ? confirmation(refusal.step_up_url) : failure(response?.status)));
}

const confirmation = (href) => [
  element("p", { className: "note", textContent: "The portal has to be sure that it is you. Afterwards you are back on this page." }),
  element("a", { className: "button", textContent: "Confirm it is you", href }),
];

const failure = (status) => [
  element("p", { className: "error", textContent: status === 422 ? "That is not right. Nothing has changed." : "That did not work. Try again in a moment." }),
];

const figures = (payslips) => element("dl", { className: "figures" }, payslips.map(({ month, net }) => (
  element("div", {}, [
    element("dt", { textContent: `${month}, net` }),
    element("dd", { textContent: euros.format(net) }),
  ])
)));

function element(name, properties, children = []) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
