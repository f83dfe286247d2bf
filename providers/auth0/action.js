// Auth0 Action for the trigger post-login: asks for a second factor when Stepgate asks for one.
// README.md beside this file tells how to install it.

// The applications that Stepgate stands in front of. Others are left alone.
const CLIENTS_WITH_MFA = ["REPLACE_WITH_YOUR_CLIENT_ID"];

const MULTI_FACTOR = "http://schemas.openid.net/pape/policies/2007/06/multi-factor";

const IN_THIS_LOGIN_MS = 5_000;

exports.onExecutePostLogin = async (event, api) => {
  if (!CLIENTS_WITH_MFA.includes(event.client.client_id)) return;

  // Nobody is there to be asked: Auth0 would answer `mfa_required`. Such a token has no `amr`, and Stepgate asks the person.
  if (event.transaction?.protocol === "oauth2-refresh-token") return;

  // Absent where the request had no `acr_values`.
  const asked = event.transaction?.acr_values ?? [];
  if (!asked.includes(MULTI_FACTOR)) return;

  if (hasJustDoneMfa(event)) return;

  api.multifactor.enable("any", { allowRememberBrowser: false });
};

/**
 * Whether an Action before this one has challenged the person already. The methods are those of the whole session, and a second
 * factor of an earlier login puts no `amr` into this token: it must not count, or the person would go round.
 */
function hasJustDoneMfa(event) {
  const methods = event.authentication?.methods ?? [];
  return methods.some(({ name, timestamp }) => name === "mfa" && Math.abs(Date.now() - Date.parse(timestamp)) < IN_THIS_LOGIN_MS);
}
