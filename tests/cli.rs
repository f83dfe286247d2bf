//! The command-line tool, as people run it: what it prints, and its exit codes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const CONFIG: &str = "\
provider:
  issuer: https://tenant.auth0.com/
client:
  id: k3yC1ient
  redirect_uri: https://app.example.com/callback
rules:
  - name: payroll
    paths: [/salary/**]
    except: [/salary/help]
    methods: [GET, POST]
    require: { amr: mfa, max_age: 5m }
  - hosts: [admin.example.com]
    paths: [/**]
    mode: report
";

/// A fixed time, so that outputs can be compared.
const NOW: &str = "2026-11-24T12:00:00Z";

/// A folder of its own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("stepgate-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, content).unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepgate"));
    command.env_remove("STEPGATE_KEY").env_remove("STEPGATE_CLIENT_SECRET");
    command
}

fn run(folder: &Folder, arguments: &[&str]) -> (i32, String, String) {
    ended(&tool().args(arguments).current_dir(&folder.0).output().unwrap())
}

fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn with_config(name: &str) -> Folder {
    let folder = Folder::new(name);
    folder.file("stepgate.yaml", CONFIG);
    folder
}

#[test]
fn check_accepts_a_valid_configuration_and_tells_what_is_risky() {
    let folder = with_config("valid");
    let (code, out, err) = run(&folder, &["check", "stepgate.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "stepgate.yaml:14:5: warning: rules[1].mode: report: this rule is not enforced\nstepgate.yaml: valid, 1 warning\n"
    );
    assert_eq!(run(&folder, &["check", "--deny-warnings", "stepgate.yaml"]).0, 1);
}

#[test]
fn check_tells_every_problem_with_its_line_and_column() {
    let folder = Folder::new("problems");
    let wrong = CONFIG.replace("issuer:", "isuer:").replace("5m", "-5s").replace("report", "rapport");
    folder.file("wrong.yaml", &wrong);
    let (code, out, _) = run(&folder, &["check", "wrong.yaml"]);
    assert_eq!(code, 3);
    let places: Vec<&str> = out.lines().filter_map(|line| line.split(": error: ").next()).collect();
    assert_eq!(
        places,
        [
            "wrong.yaml:2:3",
            "wrong.yaml:1:1",
            "wrong.yaml:11:26",
            "wrong.yaml:14:5",
            "wrong.yaml: not valid, 4 problems"
        ]
    );
    let (code, out, _) = run(&folder, &["check", "--json", "wrong.yaml"]);
    let reports: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 3);
    assert_eq!(reports[0]["errors"][2]["path"], "rules[0].require.max_age");
    assert_eq!((&reports[0]["errors"][2]["line"], &reports[0]["errors"][2]["column"]), (&11.into(), &26.into()));
}

#[test]
fn check_finds_configurations_inside_those_of_hosts() {
    let folder = Folder::new("inside");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy");
    for (file, within) in [
        ("envoy.yaml", "configuration.value)"),
        ("istio-wasmplugin.yaml", "(spec.pluginConfig)"),
        ("envoy-gateway.yaml", "(spec.wasm[0].config)"),
    ] {
        let (code, out, _) = run(&folder, &["check", root.join(file).to_str().unwrap()]);
        assert_eq!(code, 0, "{out}");
        assert!(out.contains(within), "{out}");
    }
    let json = serde_json::json!({ "configuration": { "@type": "…StringValue", "value": r#"{"provider": {}, "client": {}}"# } });
    folder.file("string.json", &json.to_string());
    let (code, out, _) = run(&folder, &["check", "string.json"]);
    assert_eq!(code, 3);
    assert!(out.contains("provider.issuer: missing"), "{out}");
}

#[test]
fn check_refuses_what_is_no_document() {
    let folder = Folder::new("no-document");
    for (name, content, expected) in [
        ("a.yaml", "a: [1", "not valid YAML"),
        ("b.yaml", "a: 1\na: 2\n", "not valid YAML"),
        ("c.json", "{\"a\": 1,}", "not valid JSON"),
        ("d.yaml", "", "configuration"),
        ("e.yaml", "a: 1\n---\nb: 2\n", "no configuration of a gate"),
        ("f.yaml", "- 1", "configuration"),
        ("g.yaml", "rules: .nan", "not valid YAML"),
        ("h.yaml", &format!("a: {}", "[".repeat(10_000)), "not valid YAML"),
    ] {
        folder.file(name, content);
        let (code, out, err) = run(&folder, &["check", name]);
        assert_eq!(code, 3, "{name}: {out}{err}");
        assert!(format!("{out}{err}").contains(expected), "{name}: {out}{err}");
    }
    let (code, out, _) = run(&folder, &["check", "nowhere.yaml"]);
    assert!(code == 1 && out.contains("nowhere.yaml: No such file"), "{out}");
}

#[test]
fn warnings_are_about_what_is_legal_and_rarely_meant() {
    let folder = Folder::new("warnings");
    let config = r#"
provider: { issuer: "http://localhost:9000", jwks_uri: "http://localhost:9000/jwks" }
client: { id: a, redirect_uri: "https://app.example.com/callback", secret: "a literal secret of 32 characters" }
token: { algorithms: [RS256, HS256], leeway: 5m }
callback: { keys: ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] }
mode: report
rules:
  - { paths: [/a/**] }
  - { paths: [/a/b], name: redundant }
  - { paths: [/c], except: [/c/**], name: never }
  - { paths: [/d/**], except: [/e], mode: enforce, name: idle }
  - { paths: [/a/b], require: {}, name: other }
"#;
    folder.file("w.yaml", config);
    let (code, out, _) = run(&folder, &["check", "--json", "w.yaml"]);
    assert_eq!(code, 0, "{out}");
    let reports: Value = serde_json::from_str(&out).unwrap();
    let paths: Vec<&str> =
        reports[0]["warnings"].as_array().unwrap().iter().map(|warning| warning["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "client.secret",
            "callback.keys[0]",
            "provider.issuer",
            "token.algorithms",
            "token.leeway",
            "token.cookie",
            "mode",
            "rules[1]",
            "rules[2].except",
            "rules[3].except[0]"
        ]
    );
    assert!(!out.contains("a literal secret of 32"), "the secret is shown");
}

#[test]
fn a_variable_that_is_not_set_is_a_note() {
    let folder = Folder::new("variables");
    let config = CONFIG.replace("  id: k3yC1ient\n", "  id: k3yC1ient\n  secret: { env: STEPGATE_CLIENT_SECRET }\n")
        + "callback:\n  keys: [{ env: STEPGATE_KEY }]\ntoken: { cookie: __Host-id_token }\n";
    folder.file("v.yaml", &config);
    let (code, out, _) = run(&folder, &["check", "v.yaml"]);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("v.yaml:5:13: note: client.secret.env: the variable `STEPGATE_CLIENT_SECRET` is not set here"),
        "{out}"
    );
    let set =
        tool().args(["check", "v.yaml"]).current_dir(&folder.0).env("STEPGATE_KEY", "too short").output().unwrap();
    let (code, out, _) = ended(&set);
    assert_eq!(code, 3);
    assert!(out.contains("callback.keys[0]") && !out.contains("too short"), "{out}");
}

#[test]
fn explain_ends_as_the_request_does() {
    let folder = with_config("explain");
    let explain = |arguments: &[&str]| {
        let (code, out, err) =
            run(&folder, &[&["explain", "stepgate.yaml", "--now", NOW, "--url"], arguments].concat());
        (code, out + &err)
    };
    let (code, out) = explain(&["/news"]);
    assert!(code == 0 && out.contains("forward, not_protected"), "{out}");
    let (code, out) = explain(&["/salary/me"]);
    assert!(code == 2 && out.contains("redirect, token_missing"), "{out}");
    assert!(out.contains("    max_age = 300"), "{out}");
    let (code, out) = explain(&["/salary/me", "--claims", r#"{"amr": ["pwd", "mfa"]}"#]);
    assert!(code == 0 && out.contains("forward, satisfied"), "{out}");
    let (code, out) = explain(&["/salary/me", "--claims", r#"{"amr": ["pwd"]}"#]);
    assert!(code == 2 && out.contains("has `mfa`: [\"pwd\"] [payroll] → amr_insufficient"), "{out}");
    let (code, out) = explain(&["/salary/me", "--claims", r#"{"amr": ["mfa"], "auth_time": 1795517999}"#]);
    assert!(code == 2 && out.contains("→ auth_too_old"), "{out}");
    let (code, out) = explain(&["/salary/me", "--claims", r#"{"aud": "another", "amr": ["mfa"]}"#]);
    assert!(code == 2 && out.contains("→ audience_mismatch"), "{out}");
    let (code, out) = explain(&["/salary/me", "--header", "Accept: application/json"]);
    assert!(code == 2 && out.contains("challenge, token_missing"), "{out}");
    let (code, out) = explain(&["https://admin.example.com/x"]);
    assert!(code == 0 && out.contains("report, token_missing") && out.contains("(report only)"), "{out}");
    let (code, out) = explain(&["/salary/%00"]);
    assert!(code == 1 && out.contains("bad_request, path_rejected"), "{out}");
    let (code, out) = explain(&["/news/..%2fsalary/me"]);
    assert!(code == 2 && out.contains("`/salary/me` matches `/salary/**`"), "{out}");
    let (code, out) = explain(&["/salary/help"]);
    assert!(code == 0 && out.contains("every reading is left out by `/salary/help`"), "{out}");
    let (code, out) = explain(&["/salary/me", "--method", "DELETE"]);
    assert!(code == 0 && out.contains("the method `DELETE` is none of `GET`, `POST`"), "{out}");
}

#[test]
fn a_token_is_not_believed_without_keys_unless_told_so() {
    let folder = with_config("believe");
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL3RlbmFudC5hdXRoMC5jb20vIn0.c2ln";
    let url = ["explain", "stepgate.yaml", "--url", "/salary/me", "--token", token];
    let (code, out, err) = run(&folder, &url);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("--jwks FILE") && !err.contains(token), "{err}");
    let cookie = format!("id_token={token}");
    assert_eq!(run(&folder, &["explain", "stepgate.yaml", "--url", "/salary/me", "--cookie", &cookie]).0, 1);
    let (code, out, _) = run(&folder, &[&url[..], &["--unverified"]].concat());
    assert!(code == 2 && out.contains("no `sub`: no") || out.contains("→ token_malformed"), "{out}");
    assert!(out.contains("the signature was not checked") && !out.contains(token), "{out}");
    folder.file(
        "jwks.json",
        r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    );
    let (code, out, _) = run(&folder, &[&url[..], &["--jwks", "jwks.json"]].concat());
    assert!(code == 2 && out.contains("→ key_unknown"), "{out}");
    folder.file("none.json", "{}");
    let (code, _, err) = run(&folder, &[&url[..], &["--jwks", "none.json"]].concat());
    assert!(code == 1 && err.contains("the provider's keys are of no use"), "{err}");
}

#[test]
fn a_sealed_cookie_is_made_of_the_token() {
    let folder = Folder::new("sealed");
    let config = CONFIG.replace("  id: k3yC1ient\n", "  id: k3yC1ient\n  secret: { env: STEPGATE_CLIENT_SECRET }\n")
        + "callback:\n  keys: [{ env: STEPGATE_KEY }]\n  seal_token: true\n";
    folder.file("stepgate.yaml", &config);
    let (code, out, _) =
        run(&folder, &["explain", "stepgate.yaml", "--url", "/salary/me", "--claims", r#"{"amr": ["mfa"]}"#]);
    assert!(code == 0 && out.contains("forward, satisfied"), "{out}");
}

#[test]
fn decode_shows_a_token_and_does_not_believe_it() {
    let folder = Folder::new("decode");
    let token = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJpc3MiOiJhIiwiZXhwIjoxNzk1NTIxNjAwfQ.c2ln";
    let (code, out, _) = run(&folder, &["decode", token]);
    assert_eq!(code, 0);
    for expected in ["2026-11-24T12:00:00Z", "not checked", "`typ` is \"at+jwt\"", "no `sub`", "amr_missing"] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    let mut child =
        tool().args(["decode", "-", "--json"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{token}").unwrap();
    let (code, out, _) = ended(&child.wait_with_output().unwrap());
    let decoded: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &decoded["claims"]["iss"], &decoded["verified"]), (0, &"a".into(), &false.into()));
    for wrong in ["", "a.b", "a.b.c.d.e", "!.!.!", "e30.e30", "W10.e30.c2ln"] {
        let (code, out, err) = run(&folder, &["decode", wrong]);
        assert!(code == 1 && out.is_empty() && err.starts_with("error: "), "{wrong}: {err}");
    }
}

#[test]
fn keys_are_new_each_time_and_accepted() {
    let folder = Folder::new("keygen");
    let (_, first, _) = run(&folder, &["keygen"]);
    let (_, second, _) = run(&folder, &["keygen"]);
    assert_ne!(first, second);
    assert_eq!(first.trim().len(), 44);
    let config = CONFIG.replace("  id: k3yC1ient\n", "  id: k3yC1ient\n  secret: a\n")
        + &format!("callback:\n  keys: [{:?}]\n", first.trim());
    folder.file("stepgate.yaml", &config);
    let (code, out, _) = run(&folder, &["check", "stepgate.yaml"]);
    assert!(code == 0 && !out.contains(first.trim()), "{out}");
}

#[test]
fn wrong_usage_is_a_failure_and_no_step_up() {
    let folder = Folder::new("usage");
    for arguments in [&[][..], &["frobnicate"], &["check"], &["explain", "x.yaml"], &["check", "--nope", "x"]] {
        let (code, out, err) = run(&folder, arguments);
        assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}");
        assert!(err.contains("Usage:"), "{err}");
    }
    for arguments in [&["--help"][..], &["--version"], &["help", "check"], &["completions", "bash"], &["schema"]] {
        let (code, out, err) = run(&folder, arguments);
        assert!(code == 0 && err.is_empty() && !out.is_empty(), "{arguments:?}: {err}");
    }
}

#[test]
fn there_are_no_colours_but_on_a_terminal() {
    let folder = with_config("colours");
    let (_, out, _) = run(&folder, &["explain", "stepgate.yaml", "--url", "/salary/me"]);
    assert!(!out.contains('\u{1b}'), "{out:?}");
    let forced =
        tool().args(["check", "stepgate.yaml"]).current_dir(&folder.0).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(ended(&forced).1.contains('\u{1b}'));
}

/// The commands of the tool in the blocks of a page, each block a list.
fn documented(page: &str) -> Vec<Vec<String>> {
    let mut blocks: Vec<Vec<String>> = Vec::new();
    let mut in_shell = false;
    for line in page.lines() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            in_shell = info.trim() == "sh";
            if in_shell {
                blocks.push(Vec::new());
            }
        }
        let command = line.trim_start().trim_start_matches("- run: ");
        if command.starts_with("stepgate ") && (in_shell || line.contains("- run: ")) {
            match blocks.last_mut() {
                Some(block) => block.push(command.to_owned()),
                None => blocks.push(vec![command.to_owned()]),
            }
        }
    }
    blocks
}

#[test]
fn every_documented_command_does_what_it_is_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    let files = |folder: &str| std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(files("docs").filter(|file| file.extension().is_some_and(|extension| extension == "md")));
    pages.extend(files("providers").map(|folder| folder.join("README.md")));
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL3RlbmFudC5hdXRoMC5jb20vIn0.c2ln";
    let keys = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let (mut count, mut failures) = (0, Vec::new());
    for page in pages {
        for (index, block) in documented(&std::fs::read_to_string(&page).unwrap()).iter().enumerate() {
            let name = page.strip_prefix(root).unwrap().display().to_string();
            let folder = Folder::new(&format!("documented-{}-{index}", name.replace('/', "-")));
            folder.file("token", token);
            folder.file("keys.json", keys);
            for given in ["providers", "envoy"] {
                std::os::unix::fs::symlink(root.join(given), folder.0.join(given)).unwrap();
            }
            // The edge package, as far as its files are copied.
            std::fs::create_dir_all(folder.0.join("dist/edge")).unwrap();
            let package = files("edge").map(|file| file.file_name().unwrap().to_str().unwrap().to_owned());
            for file in package.chain(["stepgate_core.js".to_owned(), "stepgate_core_bg.wasm".to_owned()]) {
                folder.file(&format!("dist/edge/{file}"), "");
            }
            std::fs::copy(root.join("providers/auth0/stepgate.yaml"), folder.0.join("stepgate.yaml")).unwrap();
            let path =
                format!("{}:/usr/bin:/bin", Path::new(env!("CARGO_BIN_EXE_stepgate")).parent().unwrap().display());
            for command in block {
                count += 1;
                let shell =
                    Command::new("bash").args(["-c", command]).env("PATH", &path).current_dir(&folder.0).output();
                let (code, _, err) = ended(&shell.unwrap());
                let expected: &[i32] = if command.starts_with("stepgate explain") { &[0, 2] } else { &[0] };
                if !expected.contains(&code) {
                    failures.push(format!("{name}: `{command}` ended with {code}: {err}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count >= 30, "only {count}");
}

#[test]
fn the_tool_decides_the_shared_cases_as_they_say() {
    let folder = Folder::new("shared");
    let cases = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")).unwrap();
    let mut files: Vec<String> = cases.map(|entry| entry.unwrap().path().display().to_string()).collect();
    files.retain(|file| file.ends_with(".json"));
    let mut arguments = vec!["test", "--json"];
    arguments.extend(files.iter().map(String::as_str));
    let (code, out, err) = run(&folder, &arguments);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{err}"));
    assert_eq!((code, &report["failed"], &report["skipped"]), (0, &0.into(), &0.into()));
    println!("the tool: {} cases agree", report["passed"]);
    assert!(report["passed"].as_u64().unwrap() >= 1_400);
}

#[test]
fn own_cases_pass_or_say_what_differs() {
    let folder = with_config("own-cases");
    let cases = "\
cases:
  - name: a password is not enough
    token: { claims: { amr: [pwd] } }
    request: { path: /salary/me }
    expect: { decision: redirect, reason: amr_insufficient, authorize: { max_age: '300' } }
  - name: news are open
    request: { path: /news }
    expect: { decision: forward, reason: not_protected }
";
    folder.file("cases.yaml", cases);
    let (code, out, err) = run(&folder, &["test", "stepgate.yaml", "cases.yaml", "--junit", "report.xml"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "pass: 2 passed, 0 failed, 0 skipped\n", ""));
    let report = std::fs::read_to_string(folder.0.join("report.xml")).unwrap();
    assert!(report.contains(r#"<testsuite name="cases.yaml" tests="2" failures="0""#), "{report}");

    folder.file("wrong.yaml", &cases.replace("'300'", "'60'"));
    let (code, out, _) = run(&folder, &["test", "stepgate.yaml", "wrong.yaml"]);
    assert_eq!(code, 1);
    assert!(out.contains("FAIL wrong.yaml/a password is not enough") && out.contains(r#"expected "60""#), "{out}");

    folder.file("mistaken.yaml", &cases.replace("expect", "expects"));
    let (code, _, err) = run(&folder, &["test", "stepgate.yaml", "mistaken.yaml"]);
    assert!(code == 1 && err.contains("mistaken.yaml, `a password is not enough`: expects: unknown field"), "{err}");
    assert_eq!(run(&folder, &["test", "stepgate.yaml"]).0, 1);
    folder.file("stepgate.yaml", &CONFIG.replace("issuer:", "isuer:"));
    assert_eq!(run(&folder, &["test", "stepgate.yaml", "cases.yaml"]).0, 3);
}

/// Signed with the private key of RFC 7515 appendix A.2, which everybody has.
const PUBLISHED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

#[test]
fn a_token_is_found_wherever_it_is_and_not_believed() {
    let folder = with_config("found");
    for cookie in
        [format!("id_token={PUBLISHED}"), format!("x=1; id_token={PUBLISHED}"), format!(" id_token={PUBLISHED}")]
    {
        let explain = ["explain", "stepgate.yaml", "--url", "/salary/me", "--cookie", &cookie];
        let (code, out, err) = run(&folder, &explain);
        assert!(code == 1 && out.is_empty() && err.contains("--jwks FILE"), "{out}{err}");
        let (_, out, _) = run(&folder, &[&explain[..], &["--unverified"]].concat());
        assert!(out.contains("taken for valid, not checked") && out.contains("token_malformed"), "{out}");
    }
    let (code, out, err) =
        run(&folder, &["explain", "stepgate.yaml", "--url", "/salary/me", "--header", "cookie: c=d"]);
    assert!(code == 2 && out.contains("token_missing"), "{out}{err}");
}

#[test]
fn tokens_are_not_echoed() {
    let folder = with_config("echo");
    let header = format!("authorization Bearer {PUBLISHED}");
    let url = format!("app.example.com/callback?id_token={PUBLISHED}");
    let explain = ["explain", "stepgate.yaml", "--url"];
    for arguments in [
        vec!["decode", "Bearer", PUBLISHED],
        vec![PUBLISHED],
        [&explain[..], &["/x", PUBLISHED]].concat(),
        [&explain[..], &["/x", "--header", &header]].concat(),
        [&explain[..], &["/x", "--token-file", PUBLISHED]].concat(),
        [&explain[..], &[&url]].concat(),
        [&explain[..], &["https://user:password@app.example.com/"]].concat(),
    ] {
        let (code, out, err) = run(&folder, &arguments);
        assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}");
        assert!(!err.contains("eyJ") && !err.contains("cC4hiUPo") && !err.contains("password"), "{err}");
    }
}

#[test]
fn what_no_host_delivers_is_refused() {
    let folder = with_config("delivers");
    for wrong in [
        &["--method", "GE T"][..],
        &["--header", "a b: c"],
        &["--header", ":path: /x"],
        &["--header", "x: a\r\nb: c"],
        &["--cookie", "x"],
        &["--now", "1795545600000"],
        &["--now", "2026-11-24"],
        &["--token", " "],
        &["--token", "-", "--metadata", "-"],
    ] {
        let (code, out, err) =
            run(&folder, &[&["explain", "stepgate.yaml", "--url", "/salary/me"][..], wrong].concat());
        assert!(code == 1 && out.is_empty() && err.starts_with("error: "), "{wrong:?}: {out}{err}");
    }
}

#[test]
fn programs_get_a_document_whatever_happens() {
    let folder = with_config("document");
    folder.file("wrong.yaml", "a: [1");
    for (arguments, expected) in [
        (&["check", "--json", "wrong.yaml"][..], 3),
        (&["check", "--json", "stepgate.yaml", "nowhere.yaml"], 1),
        (&["explain", "--json", "wrong.yaml", "--url", "/"], 3),
        (&["test", "--json", "stepgate.yaml", "nowhere.yaml"], 1),
        (&["decode", "--json", "a.b"], 1),
    ] {
        let (code, out, _) = run(&folder, arguments);
        assert_eq!(code, expected, "{arguments:?}");
        assert!(serde_json::from_str::<Value>(&out).is_ok(), "{arguments:?}: {out}");
    }
    let (_, out, _) = run(&folder, &["check", "--json", "wrong.yaml", "stepgate.yaml"]);
    let reports: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&reports[0]["valid"], &reports[1]["valid"]), (&false.into(), &true.into()), "each file has its report");
}

#[test]
fn what_stands_around_a_gate_is_looked_at() {
    let folder = Folder::new("around");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy");
    for (file, from, to, expected) in [
        ("envoy.yaml", "FAIL_RELOAD", "FAIL_OPEN", "`failure_policy`"),
        (
            "envoy.yaml",
            "[STEPGATE_CLIENT_SECRET, STEPGATE_KEY]",
            "[STEPGATE_KEY]",
            "client.secret.env: the host does not hand",
        ),
        ("envoy.yaml", "cluster: idp\n", "timeout: 4s\n", "has no `cluster`"),
        ("istio-wasmplugin.yaml", "FAIL_CLOSE", "FAIL_OPEN", "`failStrategy`"),
        (
            "istio-wasmplugin.yaml",
            "- name: STEPGATE_KEY",
            "- name: OTHER",
            "callback.keys[0].env: the host does not hand",
        ),
        ("envoy-gateway.yaml", "failOpen: false", "failOpen: true", "`failOpen`"),
    ] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let changed = text.replacen(from, to, 1);
        assert_ne!(text, changed, "{file}: {from}");
        folder.file(file, &changed);
        let (code, out, _) = run(&folder, &["check", "--deny-warnings", file]);
        assert!(code == 1 && out.contains(expected), "{file} {to}: {out}");
        folder.file(file, &text);
        let (_, out, _) = run(&folder, &["check", file]);
        assert!(!out.contains(expected), "{file}: {out}");
    }
}

#[test]
fn report_mode_can_be_meant() {
    let folder = with_config("meant");
    assert_eq!(run(&folder, &["check", "--deny-warnings", "stepgate.yaml"]).0, 1);
    let (code, out, _) = run(&folder, &["check", "--deny-warnings", "--allow-report", "stepgate.yaml"]);
    assert!(code == 0 && out.contains("note: rules[1].mode: report"), "{out}");
}

#[test]
fn a_deployment_that_does_not_fit_is_refused() {
    let folder = with_config("fit");
    for wrong in [
        &["--for", "envoy", "--app", "foo:0"][..],
        &["--for", "envoy", "--app", "http://foo:80"],
        &["--for", "envoy", "--app", "a b:80"],
        &["--for", "envoy", "--namespace", "edge"],
        &["--for", "istio", "--namespace", "Foo Bar"],
        &["--for", "istio", "--app", "app:80"],
        &["--for", "envoy-gateway", "--app", "127.0.0.1:8081"],
        &["--for", "workerd", "--output", "out"],
        &["--for", "envoy", "--output", "stepgate.yaml"],
    ] {
        let (code, out, err) = run(&folder, &[&["render", "stepgate.yaml"][..], wrong].concat());
        assert!(code == 1 && out.is_empty() && err.starts_with("error: "), "{wrong:?}: {out}{err}");
    }
    let render = ["render", "stepgate.yaml", "--for", "envoy", "--output", "out"];
    let (code, _, err) = run(&folder, &render);
    assert!(code == 0 && err.contains("note: without `--app`"), "{err}");
    let (code, _, err) = run(&folder, &render);
    assert!(code == 1 && err.contains("is there already"), "{err}");
}

#[test]
fn claims_do_not_reach_the_terminal_as_commands() {
    let folder = with_config("terminal");
    // { "\u001b[2J": "\u202e\u009b2J", "iss": "a" }
    let token = format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", "eyJcdTAwMWJbMkoiOiAiXHUyMDJlXHUwMDliMkoiLCAiaXNzIjogImEifQ");
    let (code, out, _) = run(&folder, &["decode", &token]);
    assert_eq!(code, 0);
    assert!(out.contains("\\u{1b}[2J") && out.contains("\\u{202e}\\u{9b}2J"), "{out}");
    let claims = "{\"amr\": [\"\u{202e}\u{9b}2J\"]}";
    let (_, out, _) = run(&folder, &["explain", "stepgate.yaml", "--url", "/salary/\u{202e}x", "--claims", claims]);
    assert!(!out.contains(['\u{202e}', '\u{9b}']) && out.contains("\\u{202e}"), "{out}");
}

#[test]
fn every_recipe_is_rendered_with_its_own_clusters() {
    let folder = Folder::new("rendered");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("providers");
    for recipe in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path().join("stepgate.yaml")) {
        let config: Value = serde_saphyr::from_str(&std::fs::read_to_string(&recipe).unwrap()).unwrap();
        for host in ["envoy", "istio", "envoy-gateway"] {
            let (code, out, err) = run(&folder, &["render", recipe.to_str().unwrap(), "--for", host]);
            if config["provider"]["issuer"].as_str().unwrap().starts_with("http:") && host != "envoy" {
                assert!(code == 3 && err.contains("plain http"), "{err}");
                continue;
            }
            assert_eq!(code, 0, "{}: {err}", recipe.display());
            let file = folder.file("rendered.yaml", &out);
            let (_, report, _) = run(&folder, &["check", "--json", file.to_str().unwrap()]);
            let reports: Value = serde_json::from_str(&report).unwrap();
            assert_eq!(reports[0]["errors"], serde_json::json!([]), "{report}");
            // All that differs is the clusters: as many as there were, for the same hosts.
            let rendered: Vec<Value> = serde_saphyr::from_multiple(&out).unwrap();
            let mut gate = find(&rendered.into(), "rules").expect("a gate");
            let clusters = gate["provider"]["cluster"].take();
            let mut own = config.clone();
            let own_clusters = own["provider"]["cluster"].take();
            assert_eq!(gate, own, "{}", recipe.display());
            let hosts = |clusters: &Value| clusters.as_object().map(|hosts| hosts.keys().cloned().collect::<Vec<_>>());
            assert_eq!(hosts(&clusters), hosts(&own_clusters), "{}", recipe.display());
        }
    }
}

/// The first object that has this member.
fn find(value: &Value, member: &str) -> Option<Value> {
    match value {
        Value::Object(members) if members.contains_key(member) && members.contains_key("provider") => {
            Some(value.clone())
        }
        Value::Object(members) => members.values().find_map(|value| find(value, member)),
        Value::Array(items) => items.iter().find_map(|item| find(item, member)),
        _ => None,
    }
}

#[test]
fn texts_of_the_document_stay_as_they_are() {
    let folder = Folder::new("texts");
    let config = CONFIG
        .replace("app.example.com/callback", "login.example.net/callback")
        .replace("admin.example.com", "app.example.com");
    folder.file("stepgate.yaml", &config);
    for host in ["istio", "envoy-gateway"] {
        let (code, out, err) = run(&folder, &["render", "stepgate.yaml", "--for", host]);
        assert!(code == 0 && out.contains("app.example.com"), "the rule's own host: {out}{err}");
    }
}

#[test]
fn a_reader_that_goes_hears_no_pass() {
    let folder = with_config("pipe");
    let path = Path::new(env!("CARGO_BIN_EXE_stepgate"));
    let command = format!("set -o pipefail; {} check --json {} | true", path.display(), "nowhere.yaml ".repeat(3_000));
    let output = Command::new("bash").args(["-c", &command]).current_dir(&folder.0).output().unwrap();
    assert_eq!(ended(&output).0, 1);
}

#[test]
fn a_run_that_fails_leaves_no_report_of_another() {
    let folder = with_config("stale");
    folder.file("report.xml", "of another run");
    let (code, _, _) = run(&folder, &["test", "stepgate.yaml", "nowhere.yaml", "--junit", "report.xml"]);
    assert!(code == 1 && !folder.0.join("report.xml").exists());
    assert_eq!(run(&folder, &["test", "-", "cases.yaml"]).0, 1);
}

#[test]
fn cookies_of_the_app_are_not_shown() {
    let folder = Folder::new("cookies");
    folder.file("stepgate.yaml", &(CONFIG.to_owned() + "forward: { strip_token: true }\n"));
    let explain = ["explain", "stepgate.yaml", "--url", "/salary/me", "--claims", r#"{"amr": ["mfa"]}"#];
    let (code, out, _) = run(&folder, &[&explain[..], &["--cookie", "session=of-the-app"]].concat());
    assert!(code == 0 && out.contains("the app gets cookie: (session)") && !out.contains("of-the-app"), "{out}");
}
