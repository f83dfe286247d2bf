// NOT FOR USE. Rules reached their end of life on 2026-11-18; tenants made since 2023-10-16 never had them.
// This is the Rule of the original step-up tutorial: to read what an old tenant did, and to migrate from.
// What to install is action.js beside this file.
function stepUpForListedClients(user, context, callback) {
  const CLIENTS_WITH_MFA = ["REPLACE_WITH_YOUR_CLIENT_ID"];
  // run only for the specified clients
  if (CLIENTS_WITH_MFA.indexOf(context.clientID) !== -1) {
    // ask for MFA only if the web app said so in the authentication request
    if (context.request.query.acr_values === "http://schemas.openid.net/pape/policies/2007/06/multi-factor") {
      context.multifactor = {
        provider: "guardian", // or "any": whichever factor the tenant has
        allowRememberBrowser: false,
      };
    }
  }
  callback(null, user, context);
}
