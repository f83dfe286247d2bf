// What the identity provider asks a person: the password, and the one-time code when the client asks for a
// second factor. The provider library keeps the state; this decides which page is next and what an answer means.

import { errors } from "oidc-provider";

import { readForm } from "./form.mjs";
import { codePage, messagePage, passwordPage } from "./provider-pages.mjs";

export const MULTI_FACTOR = "http://schemas.openid.net/pape/policies/2007/06/multi-factor";

const MAX_WRONG_ANSWERS = 5;

const expired = {
  title: "This sign-in is over", text: "It is complete, or it has expired. Open the page that you wanted again.",
};
const misused = { title: "This does not work", text: "That is not how this page is used." };

export const asksForSecondFactor = ({ acr_values: values = "" }) => values.split(" ").includes(MULTI_FACTOR);

/** A Koa middleware. `respond(ctx, status, page)` sends a page; the other options are those of the provider. */
export function interactions({ provider, accounts, client, respond, onCodeWanted }) {
  return async (ctx, next) => {
    const [, uid, action] = ctx.path.match(/^\/interaction\/([\w-]+)(?:\/(password|code|cancel))?$/) ?? [];
    if (!uid) return next();
    if (ctx.method !== (action ? "POST" : "GET")) return respond(ctx, 405, messagePage({ ...misused, client }));
    let interaction;
    try {
      interaction = await provider.interactionDetails(ctx.req, ctx.res);
    } catch (error) {
      if (!(error instanceof errors.SessionNotFound)) throw error;
      return respond(ctx, 400, messagePage({ ...expired, client }));
    }
    await answer(ctx, action, interaction);
  };

  async function answer(ctx, action, interaction) {
    const { uid, prompt, params, session } = interaction;
    const secondFactor = asksForSecondFactor(params);
    const progress = interaction.result?.progress ?? { wrong: 0 };
    // Every reason to ask wants the password (again), except that a second factor is missing.
    const knownBySession = prompt.reasons.every((reason) => reason === "mfa") ? session?.accountId : undefined;
    const account = accounts.get(progress.username ?? knownBySession);

    if (action === "cancel") return refuse("the person cancelled");
    if (action === "password") return takePassword(await readForm(ctx.req));
    if (!account) return respond(ctx, 200, askPassword());
    if (action === "code") return takeCode(await readForm(ctx.req));
    respond(ctx, 200, askCode());

    async function takePassword(form) {
      const username = form.get("username");
      const found = accounts.get(username);
      if (!found || found.password !== form.get("password")) {
        return wrong((left) => askPassword({ username, error: ["That user name and password do not match.", left] }));
      }
      if (!secondFactor) return finish({ login: { accountId: username } });
      await save({ username });
      redirect(ctx, `/interaction/${uid}`);
    }

    async function takeCode(form) {
      const token = form.get("code")?.replaceAll(" ", "") ?? "";
      // A real provider refuses a code's second use as well; here it would only make people and tests wait.
      if (account.totp.validate({ token, window: 1 }) === null) {
        return wrong((left) => askCode(["That code is not right.", left]));
      }
      await finish({ login: { accountId: account.username, acr: MULTI_FACTOR, amr: ["pwd", "otp", "mfa"] } });
    }

    function askPassword(changes) {
      const [demoUser] = accounts.values();
      const username = session?.accountId;
      return passwordPage({ uid, clientName: client.name, secondFactor, demoUser, username, ...changes });
    }

    function askCode(error) {
      const { username, name, totp } = account;
      onCodeWanted({ user: username, code: totp.generate(), remaining: Math.ceil(totp.remaining() / 1000) });
      return codePage({ uid, clientName: client.name, name, error });
    }

    async function wrong(page) {
      const left = MAX_WRONG_ANSWERS - progress.wrong - 1;
      if (left === 0) return refuse("too many wrong answers");
      await save({ wrong: progress.wrong + 1 });
      respond(ctx, 422, page(left === 1 ? "One attempt left." : `${left} attempts left.`));
    }

    function save(changes) {
      return provider.interactionResult(ctx.req, ctx.res, { progress: { ...progress, ...changes } });
    }

    function refuse(reason) {
      return finish({ error: "access_denied", error_description: reason });
    }

    async function finish(result) {
      redirect(ctx, await provider.interactionResult(ctx.req, ctx.res, result, { mergeWithLastSubmission: false }));
    }
  }
}

function redirect(ctx, location) {
  ctx.status = 303;
  ctx.redirect(location);
}
