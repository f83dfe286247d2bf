//! `stepgate decode`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::{Exit, Problem, output, read_token};

/// The claims that are times.
const TIMES: [&str; 5] = ["exp", "nbf", "iat", "auth_time", "updated_at"];

#[derive(clap::Args)]
pub struct Arguments {
    /// The token; `-` reads it from standard input, which keeps it out of the shell's history
    token: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub fn run(arguments: &Arguments) -> Result<Exit, Problem> {
    let token = read_token(Some(&arguments.token), None)?.unwrap_or_default();
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else {
        return Err(Problem::failure(match parts.len() {
            5 => "the token has five parts: it is encrypted (JWE), which the gate does not take".to_owned(),
            count => format!("a token has three parts with dots between, this has {count}"),
        }));
    };
    let object = |name: &str, part: &str| -> Result<Map<String, Value>, Problem> {
        let bytes = bytes(name, part)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Problem::failure(format!("the token's {name} is not a JSON object: {error}")))
    };
    let (header, claims) = (object("header", header)?, object("payload", claims)?);
    let signature = bytes("signature", signature)?.len();
    let remarks = remarks(&header, &claims);
    if arguments.json {
        let decoded = json!({
            "header": header, "claims": claims, "signature_bytes": signature, "verified": false, "remarks": remarks,
        });
        output::json(&decoded)?;
        return Ok(Exit::Pass);
    }
    print("header", &header)?;
    print("claims", &claims)?;
    output::line(format_args!("{} {signature} bytes, {}", output::bold("signature"), output::yellow("not checked")))?;
    remarks
        .iter()
        .try_for_each(|remark| output::line(format_args!("{} {}", output::yellow("note:"), output::plain(remark))))?;
    Ok(Exit::Pass)
}

fn bytes(name: &str, part: &str) -> Result<Vec<u8>, Problem> {
    let refuse = |_| Problem::failure(format!("the token's {name} is not base64url without padding"));
    URL_SAFE_NO_PAD.decode(part).map_err(refuse)
}

fn print(name: &str, object: &Map<String, Value>) -> Result<(), Problem> {
    output::line(output::bold(name))?;
    let members: Vec<(String, &Value)> = object.iter().map(|(name, value)| (output::plain(name), value)).collect();
    let width = members.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    for (name, value) in members {
        let time = value.as_i64().filter(|_| TIMES.contains(&name.as_str()));
        let time = time.and_then(|secs| jiff::Timestamp::from_second(secs).ok());
        let time = time.map(|time| format!("  {time}")).unwrap_or_default();
        output::line(format_args!("  {name:width$}  {}{}", output::plain(&value.to_string()), output::dim(&time)))?;
    }
    Ok(())
}

/// What a gate would mind, whatever its configuration.
fn remarks(header: &Map<String, Value>, claims: &Map<String, Value>) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(kind) =
        header.get("typ").filter(|kind| kind.as_str().is_none_or(|kind| !kind.eq_ignore_ascii_case("JWT")))
    {
        remarks.push(format!("`typ` is {kind}: no ID Token, which the gate refuses (algorithm_not_allowed)"));
    }
    if claims.contains_key("events") {
        remarks.push("`events` makes it a Logout Token, which the gate refuses (token_malformed)".to_owned());
    }
    for name in ["iss", "sub", "aud", "exp", "iat"] {
        if !claims.contains_key(name) {
            remarks.push(format!("no `{name}`, without which the gate refuses it (token_malformed)"));
        }
    }
    if !claims.contains_key("amr") {
        remarks.push("no `amr`: a rule that asks for it is not satisfied (amr_missing)".to_owned());
    }
    if !claims.contains_key("auth_time") {
        remarks.push("no `auth_time`: a rule with `max_age` is not satisfied (auth_time_missing)".to_owned());
    }
    remarks
}
