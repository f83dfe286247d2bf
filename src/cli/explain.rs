//! `stepgate explain`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};
use stepgate::config::KeySource;
use stepgate::explain::{Answer, Check, Explanation, PathExplained, RuleExplained, explain, token_of};
use stepgate::http::Request;
use stepgate::seal::Purpose;
use stepgate::time::Timestamp;
use stepgate::{Config, Env, Gate};

use super::document::Document;
use super::{Exit, Problem, entropy, output, read_input, read_token, stand_in};

#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration, as in `check`
    config: PathBuf,
    /// The request's URL, or its path alone for the host of `client.redirect_uri`; its path is taken as it is written
    #[arg(long)]
    url: String,
    /// The request's method
    #[arg(long, default_value = "GET")]
    method: String,
    /// A header field of the request, `name: value`
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// A cookie of the request, `name=value`
    #[arg(long, value_name = "NAME=VALUE")]
    cookie: Vec<String>,
    /// The ID Token, which goes into its cookie; `-` reads it from standard input
    #[arg(long, conflicts_with_all = ["token_file", "claims"])]
    token: Option<String>,
    /// A file with the ID Token
    #[arg(long, value_name = "FILE", conflicts_with = "claims")]
    token_file: Option<PathBuf>,
    /// Claims of an ID Token, a JSON object, beside those that this gate accepts (`null` removes one); its signature is taken
    /// for valid
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// The provider's key set, a file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["unverified", "claims"])]
    jwks: Option<PathBuf>,
    /// The provider's metadata, a file; without it, endpoints that are not configured are made up
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
    /// Take the token's signature for valid, since the provider's keys are not at hand
    #[arg(long)]
    unverified: bool,
    /// The time, in RFC 3339 (2026-11-24T12:00:00Z) or as seconds since 1970; now by default
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    now: Option<Timestamp>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report<'a> {
    method: &'a str,
    authority: &'a str,
    target: &'a str,
    now: u64,
    #[serde(flatten)]
    explanation: &'a Explanation,
    notes: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Result<Exit, Problem> {
    arguments.refuse_what_no_host_delivers()?;
    let mut document = Document::read(&arguments.config)?;
    let config = stand_in::valid(&document)?;
    let now = arguments.now.map_or_else(current_time, Ok)?;
    let unverified = arguments.unverified || arguments.claims.is_some();
    let target = Target::of(&arguments.url, &config)?;
    let fields = arguments.fields(&config, arguments.read_token(&config, now)?.as_deref())?;
    let request = Request {
        method: arguments.method.as_bytes(),
        authority: target.authority.as_bytes(),
        path: target.path.as_bytes(),
        fields: &fields,
    };
    let fetches_keys = matches!(config.provider.keys, KeySource::Url(_) | KeySource::Discovered);
    // As the gate finds it, wherever it is.
    let token = token_of(&Gate::new(config.clone()), &request);
    let keys = match (&arguments.jwks, &token) {
        (Some(file), _) => Some(read_input(file)?),
        (None, Some(token)) if unverified => {
            let (algorithm, kid) = stand_in::key_of(token);
            Some(stand_in::key_set(algorithm, kid.as_deref()))
        }
        (None, Some(_)) if fetches_keys => {
            return Err(Problem::failure(
                "the provider's keys are not known here: give them by `--jwks FILE`, or `--unverified` to take the token's signature for valid",
            ));
        }
        (None, _) => None,
    };
    let config = if keys.is_some() {
        document.value = stand_in::without_keys(&document.value, &config);
        stand_in::valid(&document)?
    } else {
        config
    };
    let mut notes = Vec::new();
    if unverified {
        notes.push("the signature was not checked, but taken for valid".to_owned());
    }
    let issuer = config.provider.issuer.clone();
    let mut gate = Gate::new(config);
    let mut provider = stand_in::Provider::new(&issuer, keys);
    if let Some(file) = &arguments.metadata {
        provider.metadata = serde_json::from_str(&read_input(file)?)
            .map_err(|error| Problem::failure(format!("{}: not JSON: {error}", file.display())))?;
    } else if gate.config().provider.authorization_endpoint.is_none() {
        notes.push(
            "endpoints that are not configured are made up: the provider was not asked (`--metadata FILE` tells)"
                .to_owned(),
        );
    }
    let random = entropy()?;
    let env = Env { now, entropy: &|| random };
    provider.teach(&mut gate, now)?;
    let verdict = unverified.then_some(true);
    let explanation = explain(&mut gate, &document.value, &request, verdict, env);
    if arguments.json {
        let Target { authority, path } = &target;
        let (method, target) = (&arguments.method, path);
        output::json(&Report { method, authority, target, now: now.as_secs(), explanation: &explanation, notes })?;
    } else {
        print(&arguments.method, &target, &explanation, &notes)?;
    }
    Ok(match explanation.answer.decision {
        "forward" | "report" => Exit::Pass,
        "redirect" | "challenge" => Exit::StepUp,
        _ => Exit::Failure,
    })
}

impl Arguments {
    fn read_token(&self, config: &Config, now: Timestamp) -> Result<Option<String>, Problem> {
        let Some(claims) = &self.claims else { return read_token(self.token.as_deref(), self.token_file.as_ref()) };
        let claims: Map<String, Value> = serde_json::from_str(claims)
            .map_err(|error| Problem::failure(format!("`--claims` is not a JSON object: {error}")))?;
        stand_in::token(config, &claims, now).map(Some)
    }

    /// Refuses what no host would hand to a gate, and what can be read once only.
    fn refuse_what_no_host_delivers(&self) -> Result<(), Problem> {
        let from_stdin = [self.token.as_deref() == Some("-"), self.config == Path::new("-")];
        let files = [&self.token_file, &self.jwks, &self.metadata];
        let dashes = files.into_iter().filter(|file| file.as_deref() == Some(Path::new("-"))).count();
        if from_stdin.into_iter().filter(|dash| *dash).count() + dashes > 1 {
            return Err(Problem::failure("standard input can be read once: `-` stands several times"));
        }
        if http::Method::from_bytes(self.method.as_bytes()).is_err() {
            return Err(Problem::failure(format!("`--method` is one such as `GET`, got `{}`", self.method)));
        }
        if self.cookie.iter().any(|cookie| !cookie.contains('=')) {
            return Err(Problem::failure("`--cookie` is `NAME=VALUE`, and one has no `=`"));
        }
        Ok(())
    }

    fn fields(&self, config: &Config, token: Option<&str>) -> Result<Vec<(String, String)>, Problem> {
        let mut fields = Vec::new();
        for field in &self.header {
            // What is wrong with it is not shown: it may be a token.
            let wrong = || Problem::failure("`--header` is `NAME: VALUE`, and one is not");
            let (name, value) = field.split_once(':').ok_or_else(wrong)?;
            let name = http::HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
            if value.contains(['\r', '\n', '\0']) {
                return Err(wrong());
            }
            fields.push((name.as_str().to_owned(), value.trim().to_owned()));
        }
        let mut cookies = self.cookie.clone();
        if let Some(token) = token {
            let sealing = config.callback.as_ref().filter(|callback| callback.seal_token);
            let name = &config.token.cookie;
            let random = entropy()?;
            let value = sealing.map_or_else(
                || token.to_owned(),
                |callback| callback.keys.seal(Purpose::IdToken(name), token.as_bytes(), &random),
            );
            cookies.push(format!("{name}={value}"));
        }
        if !cookies.is_empty() {
            fields.push(("cookie".to_owned(), cookies.join("; ")));
        }
        Ok(fields)
    }
}

/// What a request is sent to, as it is written: a parser would read it in its own way, and that is what is to be explained.
struct Target {
    authority: String,
    path: String,
}

impl Target {
    fn of(url: &str, config: &Config) -> Result<Self, Problem> {
        if url.starts_with('/') {
            let (_, rest) = config.client.redirect_uri.split_once("://").unwrap_or_default();
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            return Ok(Self { authority: authority.to_owned(), path: url.to_owned() });
        }
        let accepted = "`--url` is a URL such as `https://app.example.com/salary`, or a path that starts with `/`";
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        if !["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            let shown = url.split('?').next().unwrap_or_default();
            return Err(Problem::failure(format!("{accepted}, got `{shown}`")));
        }
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(Problem::failure(format!("{accepted}, without user information")));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { authority: authority.to_owned(), path })
    }
}

/// The time now.
pub fn current_time() -> Result<Timestamp, Problem> {
    let millis = u64::try_from(jiff::Timestamp::now().as_millisecond());
    millis.map(Timestamp::from_millis).map_err(|_| Problem::failure("the clock stands before 1970"))
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    let accepted = "must be RFC 3339 with an offset, such as 2026-11-24T12:00:00Z, or seconds since 1970";
    let time = match text.parse() {
        Ok(secs) => jiff::Timestamp::from_second(secs).ok(),
        Err(_) => text.parse().ok(),
    };
    let millis = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
    millis.map(Timestamp::from_millis).ok_or_else(|| accepted.to_owned())
}

fn print(method: &str, target: &Target, explanation: &Explanation, notes: &[String]) -> Result<(), Problem> {
    let Explanation { is_own_path, path, rules, checks, answer } = explanation;
    output::line(output::bold(&output::plain(&format!("{method} {}{}", target.authority, target.path))))?;
    if *is_own_path {
        output::line(output::yellow("the gate answers this path itself, whatever the rules say"))?;
    }
    print_path(path)?;
    print_rules(rules)?;
    print_checks(checks)?;
    print_answer(answer)?;
    notes.iter().try_for_each(|note| output::line(format_args!("{} {note}", output::yellow("note:"))))
}

fn print_path(PathExplained { readings, defect, certain }: &PathExplained) -> Result<(), Problem> {
    output::line(output::bold("path"))?;
    readings.iter().try_for_each(|reading| output::line(format_args!("  {reading}")))?;
    if let Some(defect) = defect {
        output::line(format_args!("  {}: {defect}", output::red("cannot be read safely")))?;
    } else if !certain {
        output::line(output::dim("  and perhaps more: `except` leaves nothing out here"))?;
    }
    Ok(())
}

fn print_rules(rules: &[RuleExplained]) -> Result<(), Problem> {
    output::line(output::bold("rules"))?;
    let width = rules.iter().map(|rule| rule.name.chars().count()).max().unwrap_or_default();
    for RuleExplained { place, name, report_only, applies, because } in rules {
        let mark = if *applies { output::green("applies") } else { output::dim("-") };
        let report = if *report_only { " (report only)" } else { "" };
        output::line(format_args!("  {mark:9}{place:10} {name:width$}  {because}{report}"))?;
    }
    Ok(())
}

fn print_checks(checks: &[Check]) -> Result<(), Problem> {
    if checks.is_empty() {
        return Ok(());
    }
    output::line(output::bold("checks"))?;
    let width = checks.iter().map(|check| check.what.chars().count()).max().unwrap_or_default();
    for Check { rule, what, expected, found, met, code } in checks {
        let mark = match met {
            Some(true) => output::green("ok"),
            Some(false) => output::red("no"),
            None => output::dim("-"),
        };
        let rule = rule.as_ref().map(|rule| format!(" [{rule}]")).unwrap_or_default();
        let code = code.map(|code| format!(" → {code}")).unwrap_or_default();
        // Claims are anybody's words.
        let found = output::plain(found);
        output::line(format_args!(
            "  {mark:4}{what:width$}  {expected}: {found}{}{}",
            output::dim(&rule),
            output::red(&code)
        ))?;
    }
    Ok(())
}

fn print_answer(answer: &Answer) -> Result<(), Problem> {
    output::line(output::bold("answer"))?;
    let decision = match answer.decision {
        "forward" | "report" => output::green(answer.decision),
        "redirect" | "challenge" => output::yellow(answer.decision),
        _ => output::red(answer.decision),
    };
    output::line(format_args!("  {decision}, {}: {}", answer.reason, answer.because))?;
    if !answer.rules.is_empty() {
        output::line(format_args!("  rules: {}", answer.rules.join(", ")))?;
    }
    if let Some(status) = answer.status {
        output::line(format_args!("  status: {status}"))?;
    }
    for (name, value) in &answer.headers {
        output::line(format_args!("  {name}: {value}"))?;
        if name == "location" {
            for (name, value) in answer.location.iter().flat_map(|location| &location.parameters) {
                output::line(format_args!("    {name} = {}", output::plain(value)))?;
            }
        }
    }
    for name in &answer.removed {
        output::line(format_args!("  the app does not get {name}"))?;
    }
    for (name, value) in &answer.added {
        output::line(format_args!("  the app gets {name}: {value}"))?;
    }
    Ok(())
}
