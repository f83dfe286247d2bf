//! `docs/decisions.md` against the gate.

use super::*;

fn page() -> Page {
    Page::read("docs/decisions.md")
}

fn names(heading: &str) -> Vec<String> {
    page().table(heading).iter().map(|row| spans(&row[0]).remove(0)).collect()
}

#[test]
fn every_reason_code_is_named_in_order() {
    assert_eq!(names("## Reason codes"), Reason::CODES);
}

#[test]
fn every_kind_of_decision_is_named() {
    use DecisionKind::{BadRequest, Challenge, Forbidden, Forward, Redirect, Report, Unavailable};
    let kinds = [Forward, Report, Redirect, Challenge, BadRequest, Forbidden, Unavailable];
    assert_eq!(names("## Kinds of decision"), kinds.map(DecisionKind::name));
}

#[test]
fn reasons_that_are_named_anywhere_exist() {
    // A word in a code span that looks like a reason, of the same shape as some of them.
    let starts = "token_ amr_ acr_insuff auth_t keys_ step_up_f step_up_t host_m headers_ authorization_d login_r login_c \
                  provider_ callback_ transaction_ response_i pushed_authorization_f nonce_ subject_ logged_";
    let looks = |span: &String| starts.split(' ').any(|start| span.starts_with(start));
    let claims_and_fields = ["auth_time", "token_endpoint", "token_endpoint_auth_method"];
    for page in pages() {
        for span in page.spans().into_iter().filter(looks) {
            let known = Reason::CODES.contains(&span.as_str()) || claims_and_fields.contains(&span.as_str());
            assert!(known, "{}: no reason `{span}`", page.path);
        }
    }
}

/// The examples, each a request and the answer to it.
fn examples() -> Vec<(Block, Block)> {
    let mut examples = Vec::new();
    let mut request = None;
    for block in page().blocks() {
        match block.info.as_str() {
            "http request" => request = Some(block),
            "http" => examples.push((request.take().expect("a request before the answer"), block)),
            _ => {}
        }
    }
    assert!(request.is_none(), "an answer to each request");
    examples
}

fn example_config() -> Value {
    let block = page().block("yaml stepgate example");
    yaml(&block.text, &block.place)
}

fn answer(asker: &Asker, request: &Block) -> Response {
    let (first, mut headers, _) = message(request);
    let [method, path, _] = first.split(' ').collect::<Vec<_>>()[..] else { panic!("{first}") };
    let password_alone = asker.token(&json!({ "amr": ["pwd"] }));
    headers.iter_mut().for_each(|(_, value)| *value = value.replace("eyJ…", &password_alone));
    let host = headers.iter().position(|(name, _)| name == "host").expect("a host");
    let (_, host) = headers.remove(host);
    asker.ask(method, &host, path, &headers).response.expect("an answer of the gate's own")
}

#[test]
fn the_examples_are_what_the_gate_answers() {
    let asker = Asker::new(&example_config());
    let examples = examples();
    assert_eq!(examples.len(), 3);
    for (request, expected) in examples {
        let given = answer(&asker, &request);
        let (first, headers, body) = message(&expected);
        assert!(first.starts_with(&format!("HTTP/1.1 {} ", given.status)), "{}: {first}", expected.place);
        let given_headers: Vec<(String, String)> =
            given.headers.iter().map(|(name, value)| ((*name).to_owned(), without_sealed(value))).collect();
        assert_eq!(given_headers, headers, "{}", expected.place);
        if body.is_empty() {
            assert_eq!(given.body, "", "{}", expected.place);
        } else {
            let (given, expected): (Value, Value) = (
                serde_json::from_str(&without_sealed(&given.body)).expect("JSON"),
                serde_json::from_str(&body).expect("JSON"),
            );
            assert_eq!(given, expected);
        }
    }
}

/// Pages show an ellipsis in place of what is sealed.
fn without_sealed(text: &str) -> String {
    let mut shown = text.to_owned();
    for (before, after) in [("?step_up=", '"'), ("__Host-stepgate_tx_BwcHBwcHBwcHBwcHBwcHBw=", ';')] {
        if let Some((start, rest)) = text.split_once(before) {
            let (sealed, rest) = rest.split_once(after).expect("an end");
            assert!(sealed.len() > 200 && URL_SAFE_NO_PAD.decode(sealed).is_ok(), "{sealed}");
            shown = format!("{start}{before}…{after}{rest}");
        }
    }
    shown
}

#[test]
fn the_members_of_a_problem_are_all_named() {
    let members: BTreeSet<String> = page().table("### 401").iter().flat_map(|row| spans(&row[0])).collect();
    let (_, challenge) = examples().into_iter().find(|(_, answer)| answer.text.contains(" 401 ")).expect("a 401");
    let problems = [message(&challenge).2, page().block("json step-up-failed").text];
    let all = problems.iter().flat_map(|problem| {
        let problem: Value = serde_json::from_str(problem).expect("JSON");
        problem.as_object().expect("an object").keys().cloned().collect::<Vec<_>>()
    });
    assert_eq!(members, all.collect());
}

#[test]
fn the_state_is_the_one_of_the_example() {
    let state = page().block("text state").text;
    let (request, _) = examples().remove(0);
    let answer = answer(&Asker::new(&merged(example_config(), &json!({ "callback": null }))), &request);
    assert!(answer.header("location").expect("a location").contains(&format!("&state={}&", state.trim())));
    let (_, path) = state.trim().split_once('.').expect("a dot");
    let path = String::from_utf8(URL_SAFE_NO_PAD.decode(path).expect("base64url")).expect("a path");
    assert!(page().text.contains(&format!("here `{path}`")));
}

#[test]
fn the_third_redirect_is_the_last() {
    let asker = Asker::new(&merged(example_config(), &json!({ "callback": null })));
    let mut headers = Vec::new();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let decision = asker.ask("GET", "app.example.com", "/salary", &headers);
        let response = decision.response.expect("an answer");
        statuses.push(response.status);
        let cookie = response.header("set-cookie").expect("a cookie");
        headers = vec![("cookie".to_owned(), cookie.split(';').next().expect("a pair").to_owned())];
    }
    assert_eq!(statuses, [302, 302, 302, 403, 302]);
}

#[test]
fn what_counts_as_a_navigation() {
    let asker = Asker::new(&example_config());
    let cases: [(&[(&str, &str)], u16); 10] = [
        (&[], 302),
        (&[("accept", "*/*")], 302),
        (&[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], 302),
        (&[("accept", "application/json")], 401),
        (&[("x-requested-with", "XMLHttpRequest")], 401),
        (&[("sec-fetch-mode", "cors")], 401),
        (&[("sec-fetch-dest", "iframe")], 401),
        (&[("upgrade", "websocket")], 401),
        (&[(":protocol", "websocket")], 401),
        (&[("content-type", "application/grpc")], 401),
    ];
    for (headers, status) in cases {
        let owned: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let given = asker.ask("GET", "app.example.com", "/salary", &owned).response.expect("an answer");
        assert_eq!(given.status, status, "{headers:?}");
    }
}

#[test]
fn lines_of_the_log_are_the_ones_that_are_written() {
    let source = std::fs::read_to_string(root("src/host/envoy/worker.rs")).expect("a file");
    let mut checked = 0;
    for row in page().table("## Envoy's log") {
        let Some(line) = spans(&row[1]).into_iter().next() else { continue };
        for piece in line.split('<').flat_map(|piece| piece.split('>').next_back()) {
            assert!(source.contains(piece), "no line has `{piece}`");
        }
        checked += 1;
    }
    assert_eq!(checked, 8);
}

#[test]
fn counters_tags_and_the_access_log_are_those_of_envoy_yaml() {
    let document = yaml_file("envoy/envoy.yaml").remove(0);
    let block = page().block("yaml envoy bootstrap");
    let tags = yaml(&block.text, &block.place);
    assert_eq!(tags["stats_config"]["stats_tags"], document["stats_config"]["stats_tags"]);

    let text = std::fs::read_to_string(root("envoy/envoy.yaml")).expect("a file");
    let formats =
        pages().into_iter().flat_map(|page| page.blocks()).filter(|block| block.text.contains("%START_TIME%"));
    let mut count = 0;
    for block in formats {
        for line in block.text.lines().filter(|line| line.contains('%')) {
            let line = line.trim();
            assert!(text.contains(line), "{}: `{line}` is not in envoy.yaml", block.place);
        }
        assert!(block.text.contains("%FILTER_STATE(wasm.stepgate:PLAIN)%"), "{}", block.place);
        count += 1;
    }
    assert_eq!(count, 2);

    let source = std::fs::read_to_string(root("src/host/envoy/metrics.rs")).expect("a file");
    for counter in names("## Counters") {
        let name = counter.strip_prefix("wasmcustom.").expect("the namespace");
        let mut parts = name.split('.');
        assert!(source.contains(&format!("\"{}.", parts.next().expect("a name"))), "{name}");
        for part in parts {
            let (label, _) = part.split_once('=').expect("a label");
            assert!(source.contains(&format!(".{label}=")), "{name}: {label}");
        }
    }
}
