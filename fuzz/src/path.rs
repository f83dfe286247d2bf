//! A request line, `METHOD AUTHORITY TARGET`: no spelling of a protected path opens it.

use std::sync::LazyLock;

use serde_json::json;
use stepgate::http::Request;
use stepgate::path::{MAX_PATH_READINGS, MAX_READING_BYTES, Readings};
use stepgate::time::Timestamp;
use stepgate::{Config, DecisionKind, Gate, Outcome};

use crate::text::words;
use crate::world::{AUTHORIZE, Host, NOW, config, document};

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let mut document = document();
    document["rules"].as_array_mut().expect("a list").extend([
        json!({ "name": "host", "hosts": ["*.intranet.example.com"], "paths": ["/**"] }),
        json!({ "name": "method", "paths": ["/news/**"], "methods": ["POST"] }),
    ]);
    config(&document)
});

/// A longer one has more readings, and teaches nothing new.
const MAX_TARGET_BYTES: usize = 128;

pub fn path(input: &[u8]) -> bool {
    let [method, authority, target] = words(input);
    let target = &target[..target.len().min(MAX_TARGET_BYTES)];
    check_readings(target);

    let host = Host::new(Timestamp::from_secs(NOW), &[AUTHORIZE]);
    let request = Request { method, authority, path: target, fields: &Vec::<(String, Vec<u8>)>::new() };
    let kind = host.decide(&mut Gate::new(CONFIG.clone()), &request, b"", &mut |_| Outcome::Unsupported).kind;
    let forwards = kind == DecisionKind::Forward;

    let readings: Vec<Vec<u8>> = SERVERS.iter().map(|server| reading(server, target)).collect();
    let any = |is_protected: &dyn Fn(&[u8]) -> bool| readings.iter().any(|path| is_protected(path));
    let is_salary = any(&|path| first_segment(path) == Some(b"salary") && path != b"/salary/help");
    let is_post_of_news = method.eq_ignore_ascii_case(b"POST") && any(&|path| first_segment(path) == Some(b"news"));
    let is_intranet = names_intranet(authority);
    assert!(!forwards || !(is_salary || is_post_of_news || is_intranet), "forwards it");

    let is_plain = target.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'/');
    // What follows two slashes is a host to some.
    let is_ordinary = is_plain && target.starts_with(b"/") && !target.windows(2).any(|pair| pair == b"//");
    let has_plain_host = authority.iter().all(u8::is_ascii_lowercase) && !authority.is_empty();
    assert!(forwards || !is_ordinary || !has_plain_host || is_salary || is_post_of_news, "refuses it");
    forwards
}

fn check_readings(target: &[u8]) {
    let readings = Readings::of(target, false);
    assert!(readings.paths.len() <= MAX_PATH_READINGS);
    let path = cut(target, b"?");
    assert!(readings.paths.iter().map(Vec::len).sum::<usize>() <= MAX_READING_BYTES);
    assert!(readings.is_unbounded() || readings.paths.contains(&path), "the path as sent is no reading");
    assert!(Readings::of(target, true).paths.len() <= readings.paths.len());
}

fn first_segment(path: &[u8]) -> Option<&[u8]> {
    path.split(|&byte| byte == b'/').find(|segment| !segment.is_empty())
}

fn names_intranet(authority: &[u8]) -> bool {
    let host = authority.split(|&byte| byte == b':').next().unwrap_or_default().to_ascii_lowercase();
    let host = host.strip_suffix(b".").unwrap_or(&host);
    host.ends_with(b".intranet.example.com")
}

type Rewriting = fn(&[u8]) -> Vec<u8>;

/// How servers come from a target to the path that they route by. Written for this target: it shares nothing with the gate.
const SERVERS: [&[Rewriting]; 13] = [
    // One that takes the path as sent.
    &[cut_query],
    // RFC 9112 section 3.2.2: a proxy's absolute form.
    &[cut_query, cut_scheme_and_authority],
    // nginx: decodes, merges slashes, resolves dots.
    &[cut_query, decode, merge_slashes, resolve_dots],
    // nginx with merge_slashes off.
    &[cut_query, decode, resolve_dots],
    // One that resolves first, and an application that decodes what is left.
    &[cut_query, resolve_dots, decode],
    // Tomcat: path parameters go first.
    &[cut_query, cut_parameters, decode, merge_slashes, resolve_dots],
    // The same behind a proxy that has decoded once.
    &[cut_query, decode, resolve_dots, cut_parameters, decode, resolve_dots],
    // IIS: decodes, turns backslashes, drops trailing dots and spaces.
    &[cut_query, decode, turn_backslashes, resolve_dots, trim_segments, merge_slashes],
    // The WHATWG's URL parser, and an application that decodes.
    &[cut_query_and_fragment, drop_tabs_and_newlines, turn_backslashes, resolve_encoded_dots, decode],
    // The same with a base: what follows two slashes is a host.
    &[cut_query_and_fragment, drop_tabs_and_newlines, turn_backslashes, cut_host, resolve_encoded_dots, decode],
    // Whoever decodes before the query is split off.
    &[decode, cut_query_and_fragment, resolve_dots],
    // A C string.
    &[cut_query, decode, cut_at_nul, resolve_dots],
    // A proxy that decodes, and a server that decodes again.
    &[cut_query, decode, decode, merge_slashes, resolve_dots],
];

fn reading(server: &[Rewriting], target: &[u8]) -> Vec<u8> {
    server.iter().fold(target.to_vec(), |path, rewrite| rewrite(&path))
}

fn cut(path: &[u8], at: &[u8]) -> Vec<u8> {
    path.iter().copied().take_while(|byte| !at.contains(byte)).collect()
}

fn cut_query(path: &[u8]) -> Vec<u8> {
    cut(path, b"?")
}

fn cut_query_and_fragment(path: &[u8]) -> Vec<u8> {
    cut(path, b"?#")
}

fn cut_at_nul(path: &[u8]) -> Vec<u8> {
    cut(path, b"\0")
}

fn cut_parameters(path: &[u8]) -> Vec<u8> {
    let segments: Vec<Vec<u8>> = path.split(|&byte| byte == b'/').map(|segment| cut(segment, b";")).collect();
    segments.join(&b'/')
}

fn cut_scheme_and_authority(path: &[u8]) -> Vec<u8> {
    let scheme = [b"http://".as_slice(), b"https://"];
    let rest = scheme.iter().find_map(|scheme| path.strip_prefix(*scheme));
    rest.map_or(path.to_vec(), |rest| rest.iter().copied().skip_while(|&byte| byte != b'/').collect())
}

fn cut_host(path: &[u8]) -> Vec<u8> {
    if !path.starts_with(b"//") {
        return path.to_vec();
    }
    path.iter().copied().skip_while(|&byte| byte == b'/').skip_while(|&byte| byte != b'/').collect()
}

fn decode(path: &[u8]) -> Vec<u8> {
    let digit = |at: usize| path.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < path.len() {
        match (path[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|next, before| (*next, *before) == (b'/', b'/'));
    merged
}

fn turn_backslashes(path: &[u8]) -> Vec<u8> {
    path.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect()
}

fn trim_segments(path: &[u8]) -> Vec<u8> {
    let trim = |segment: &[u8]| {
        let end = segment.iter().rposition(|byte| !b". ".contains(byte)).map_or(0, |last| last + 1);
        segment[..end].to_vec()
    };
    let segments: Vec<Vec<u8>> = path.split(|&byte| byte == b'/').map(trim).collect();
    segments.join(&b'/')
}

fn drop_tabs_and_newlines(path: &[u8]) -> Vec<u8> {
    path.iter().copied().filter(|byte| !b"\t\r\n".contains(byte)).collect()
}

fn resolve_dots(path: &[u8]) -> Vec<u8> {
    resolve(path, |segment, dots| segment == dots)
}

fn resolve_encoded_dots(path: &[u8]) -> Vec<u8> {
    resolve(path, |segment, dots| decode_dots(segment) == dots)
}

fn decode_dots(segment: &[u8]) -> Vec<u8> {
    let text = segment.to_ascii_lowercase();
    let mut decoded = Vec::new();
    let mut rest = text.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let dot = rest.strip_prefix(b"%2e");
        decoded.push(if dot.is_some() { b'.' } else { *first });
        rest = dot.unwrap_or(after);
    }
    decoded
}

fn resolve(path: &[u8], is: fn(&[u8], &[u8]) -> bool) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|&byte| byte == b'/').skip(1) {
        if is(segment, b"..") {
            kept.pop();
        } else if !is(segment, b".") {
            kept.push(segment);
        }
    }
    if path.starts_with(b"/") { [b"/".as_slice(), &kept.join(&b'/')].concat() } else { path.to_vec() }
}
