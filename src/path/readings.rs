//! Every plausible reading of a request path.
//!
//! The gate and the app may read one path differently: `/x/..%2fsalary` is `/salary` to an app that decodes before
//! it resolves dot segments. A rule therefore applies when *any* reading matches it. The readings are the closure
//! of a few rewritings, each something that servers and frameworks are known to do, applied in any order:
//!
//! | rewriting | as done by |
//! | --- | --- |
//! | percent-decode, at most twice, with or without `%2f` | everybody; proxies in front of apps |
//! | decode `%uXXXX` | Windows servers |
//! | `\` is `/` | WHATWG URL parsers, Windows servers |
//! | cut at `?` or `#` | whoever decodes before splitting |
//! | drop `;parameters` of each segment, or all behind the first `;` | servlet containers |
//! | merge slashes | nginx, many routers |
//! | what follows two slashes is a host | URL parsers that are fed a path |
//! | resolve `.` and `..` | everybody, before or after decoding |
//! | drop a `*` before the path | routers that take it for a slash |
//! | trim trailing dots and spaces of a segment | Windows servers |
//! | cut at a control character, drop them all | C strings, line-based protocols, WHATWG URL parsers |
//! | full-width and overlong forms, and look-alikes of dots and slashes, are ASCII | best-fit mapping, lenient UTF-8 decoders |
//!
//! A trailing slash and empty segments never matter: patterns have none, and matching skips them.

use std::collections::BTreeSet;

use crate::reason::PathDefect;

/// How many readings of one path are followed. A path with more is refused where any rule applies to its host.
pub const MAX_PATH_READINGS: usize = 128;

/// How many bytes all readings of one path may have together. A path with more is refused where any rule applies to
/// its host.
pub const MAX_READING_BYTES: usize = 64 * 1024;

/// How often percent-encoding is undone.
const MAX_DECODINGS: u8 = 2;

/// What a path may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readings {
    /// The distinct readings, the path as sent among them.
    pub paths: Vec<Vec<u8>>,
    /// What makes the path unreadable, if anything.
    pub defect: Option<PathDefect>,
    /// Whether a server that decodes more often than the gate would read something else still.
    pub open_ended: bool,
}

impl Readings {
    /// The readings of a request target. The query never takes part.
    #[must_use]
    pub fn of(target: &[u8], case_insensitive: bool) -> Self {
        if target.is_empty() {
            return Self::unreadable(PathDefect::Absent);
        }
        let path = before(target, |byte| byte == b'?');
        let mut readings = if is_plain(path) {
            Self { paths: vec![path.to_vec()], defect: None, open_ended: false }
        } else {
            Self::closure(path)
        };
        if case_insensitive {
            let folded: BTreeSet<Vec<u8>> = readings.paths.iter().map(|path| fold_case(path)).collect();
            readings.paths = folded.into_iter().collect();
        }
        readings
    }

    /// Whether the gate gave up on listing the readings, so that only the host and the method can tell which rules
    /// apply.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        matches!(self.defect, Some(PathDefect::Absent | PathDefect::TooManyReadings))
    }

    const fn unreadable(defect: PathDefect) -> Self {
        Self { paths: Vec::new(), defect: Some(defect), open_ended: true }
    }

    /// Whether the readings tell all that the path may mean, so that an exception can be granted.
    #[must_use]
    pub const fn is_certain(&self) -> bool {
        self.defect.is_none() && !self.open_ended
    }

    fn closure(path: &[u8]) -> Self {
        let mut defect = malformed_escape(path).then_some(PathDefect::MalformedEscape);
        let mut seen: BTreeSet<(Vec<u8>, u8)> = BTreeSet::new();
        let mut bytes = 0;
        let mut open_ended = false;
        let mut pending = vec![(path.to_vec(), 0)];
        pending.extend(origin_form(path).map(|path| (path, 0)));
        // `*` alone is the server itself (RFC 9112 section 3.2.4); with more behind it some routers take it for a slash.
        pending.extend(path.strip_prefix(b"*").filter(|rest| !rest.is_empty()).map(|rest| (rest.to_vec(), 0)));
        while let Some((reading, decodings)) = pending.pop() {
            if !seen.insert((reading.clone(), decodings)) {
                continue;
            }
            bytes += reading.len();
            if seen.len() > MAX_PATH_READINGS || bytes > MAX_READING_BYTES {
                return Self::unreadable(PathDefect::TooManyReadings);
            }
            if reading.iter().any(u8::is_ascii_control) {
                defect = defect.or(Some(PathDefect::ControlCharacter));
            }
            if decodings < MAX_DECODINGS {
                let decoded = [percent_decode(&reading, |_| true), percent_decode(&reading, |byte| byte != b'/')];
                pending.extend(decoded.into_iter().flatten().map(|decoded| (decoded, decodings + 1)));
                pending.extend(percent_u_decode(&reading).map(|decoded| (decoded, decodings + 1)));
            } else {
                open_ended |= percent_decode(&reading, |_| true).is_some() || percent_u_decode(&reading).is_some();
            }
            let (folded, overlong) = fold_to_ascii(&reading);
            if overlong {
                defect = defect.or(Some(PathDefect::OverlongEncoding));
            }
            let rewritten = [
                replace(&reading, b'\\', b'/'),
                before(&reading, |byte| byte == b'?' || byte == b'#').to_vec(),
                before(&reading, |byte| byte.is_ascii_control()).to_vec(),
                reading.iter().copied().filter(|byte| !byte.is_ascii_control()).collect(),
                per_segment(&reading, |segment| before(segment, |byte| byte == b';')),
                before(&reading, |byte| byte == b';').to_vec(),
                per_segment(&reading, trim_dots_and_spaces),
                merge_slashes(&reading),
                drop_authority(&reading).to_vec(),
                resolve_dots(&reading),
                folded,
            ];
            pending.extend(
                rewritten.into_iter().filter(|rewritten| *rewritten != reading).map(|rewritten| (rewritten, decodings)),
            );
        }
        let distinct: BTreeSet<Vec<u8>> = seen.into_iter().map(|(path, _)| path).collect();
        Self { paths: distinct.into_iter().collect(), defect, open_ended }
    }
}

/// Whether no rewriting would change the path, so that it has one reading.
fn is_plain(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
        && path.iter().all(|&byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'%' | b'\\' | b'#' | b';'))
        && path
            .split(|&byte| byte == b'/')
            .skip(1)
            .all(|segment| segment.first() != Some(&b'.') && segment.last() != Some(&b'.'))
        && !path.windows(2).any(|pair| pair == b"//")
}

/// The path of a target that does not start with a slash: the path of an absolute-form target (RFC 9112 section
/// 3.2.2), and the whole target with a slash before it.
fn origin_form(target: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let rooted = (target.first() != Some(&b'/')).then(|| [b"/", target].concat());
    let after_authority = target
        .windows(3)
        .position(|window| window == b"://")
        .filter(|_| rooted.is_some())
        .and_then(|position| target.get(position + 3..))
        .map(|rest| {
            let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
            [b"/", rest.get(slash + 1..).unwrap_or_default()].concat()
        });
    rooted.into_iter().chain(after_authority)
}

fn before(path: &[u8], stop: impl Fn(u8) -> bool) -> &[u8] {
    let end = path.iter().position(|&byte| stop(byte)).unwrap_or(path.len());
    path.get(..end).unwrap_or_default()
}

fn replace(path: &[u8], from: u8, to: u8) -> Vec<u8> {
    path.iter().map(|&byte| if byte == from { to } else { byte }).collect()
}

fn per_segment(path: &[u8], rewrite: impl Fn(&[u8]) -> &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path.split(|&byte| byte == b'/').map(rewrite).collect();
    segments.join(&b'/')
}

fn trim_dots_and_spaces(segment: &[u8]) -> &[u8] {
    let without_spaces = segment.trim_ascii_end();
    if matches!(without_spaces, b"." | b"..") {
        return without_spaces;
    }
    let end = segment.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    segment.get(..end).unwrap_or_default()
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut merged = Vec::with_capacity(path.len());
    for &byte in path {
        if byte != b'/' || merged.last() != Some(&b'/') {
            merged.push(byte);
        }
    }
    merged
}

/// The path behind `//host`, as a URL parser reads it (RFC 3986 section 4.2; the WHATWG's skips any number of slashes).
fn drop_authority(path: &[u8]) -> &[u8] {
    let Some(rest) = path.strip_prefix(b"//") else { return path };
    let host = rest.iter().position(|&byte| byte != b'/').unwrap_or(rest.len());
    let end = rest.iter().skip(host).position(|&byte| byte == b'/').map_or(rest.len(), |length| host + length);
    rest.get(end..).filter(|path| !path.is_empty()).unwrap_or(b"/")
}

/// RFC 3986 section 5.2.4, segment by segment: `..` above the root stays at the root.
fn resolve_dots(path: &[u8]) -> Vec<u8> {
    let Some(relative) = path.strip_prefix(b"/") else { return path.to_vec() };
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in relative.split(|&byte| byte == b'/') {
        match segment {
            b"." => {}
            b".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    [b"/".as_slice(), &kept.join(&b'/')].concat()
}

fn hex_digit(byte: Option<&u8>) -> Option<u8> {
    byte.and_then(|&byte| char::from(byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
}

fn escape_at(path: &[u8], percent: usize) -> Option<u8> {
    let high = hex_digit(path.get(percent + 1))?;
    let low = hex_digit(path.get(percent + 2))?;
    Some(high << 4 | low)
}

fn malformed_escape(path: &[u8]) -> bool {
    path.iter().enumerate().any(|(position, &byte)| byte == b'%' && escape_at(path, position).is_none())
}

/// Undoes percent-encoding once, of the characters that are `wanted`; `None` when there are none. A malformed escape stands
/// for itself.
fn percent_decode(path: &[u8], wanted: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut position = 0;
    while let Some(&byte) = path.get(position) {
        match (byte == b'%').then(|| escape_at(path, position)).flatten().filter(|&unescaped| wanted(unescaped)) {
            Some(unescaped) => {
                decoded.push(unescaped);
                position += 3;
            }
            None => {
                decoded.push(byte);
                position += 1;
            }
        }
    }
    (decoded.len() != path.len()).then_some(decoded)
}

/// Characters that compatibility normalisation or best-fit mapping turns into dots and slashes.
const LOOK_ALIKES: [(&str, &str); 8] = [
    ("\u{2024}", "."),
    ("\u{2025}", ".."),
    ("\u{2026}", "..."),
    ("\u{2044}", "/"),
    ("\u{2215}", "/"),
    ("\u{2216}", "\\"),
    ("\u{fe52}", "."),
    ("\u{fe68}", "\\"),
];

/// Undoes `%uXXXX`, as Windows servers do; `None` when there is none.
fn percent_u_decode(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, tail)) = rest.split_first() {
        let unescaped = match rest {
            [b'%', b'u' | b'U', digits @ ..] => digits.get(..4).and_then(|digits| {
                let code =
                    digits.iter().try_fold(0, |code, digit| Some(code << 4 | u32::from(hex_digit(Some(digit))?)));
                code.and_then(char::from_u32)
            }),
            _ => None,
        };
        match unescaped {
            Some(character) => {
                decoded.extend(character.encode_utf8(&mut [0; 4]).bytes());
                rest = rest.get(6..).unwrap_or_default();
            }
            None => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    (decoded.len() != path.len()).then_some(decoded)
}

/// Maps overlong encodings of ASCII, full-width forms (U+FF01 to U+FF5E) and look-alikes of dots and slashes to ASCII.
/// The flag tells of an overlong one.
fn fold_to_ascii(path: &[u8]) -> (Vec<u8>, bool) {
    let mut folded = Vec::with_capacity(path.len());
    let mut overlong = false;
    let mut rest = path;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some((look_alike, ascii)) =
            LOOK_ALIKES.iter().find(|(look_alike, _)| rest.starts_with(look_alike.as_bytes()))
        {
            folded.extend(ascii.bytes());
            rest = rest.get(look_alike.len()..).unwrap_or_default();
            continue;
        }
        let (byte, used) = match (first, tail) {
            (0xC0 | 0xC1, [second @ 0x80..=0xBF, ..]) => {
                overlong = true;
                ((first & 1) << 6 | second & 0x3F, 2)
            }
            (0xE0, [second @ 0x80..=0x81, third @ 0x80..=0xBF, ..]) => {
                overlong = true;
                ((second & 1) << 6 | third & 0x3F, 3)
            }
            (0xF0, [0x80, second @ 0x80..=0x81, third @ 0x80..=0xBF, ..]) => {
                overlong = true;
                ((second & 1) << 6 | third & 0x3F, 4)
            }
            (0xEF, [0xBC, third @ 0x81..=0xBF, ..]) => (third - 0x60, 3),
            (0xEF, [0xBD, third @ 0x80..=0x9E, ..]) => (third - 0x20, 3),
            _ => (first, 1),
        };
        folded.push(byte);
        rest = rest.get(used..).unwrap_or_default();
    }
    (folded, overlong)
}

/// Case folding for origins that ignore case: by way of upper case, as such origins compare (`ſ` is an `S` to them).
pub(super) fn fold_case(path: &[u8]) -> Vec<u8> {
    let mut folded = Vec::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        folded.extend(chunk.valid().to_uppercase().to_lowercase().bytes());
        folded.extend(chunk.invalid());
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_as(target: &str, reading: &str) -> bool {
        Readings::of(target.as_bytes(), false).paths.contains(&reading.as_bytes().to_vec())
    }

    #[test]
    fn a_plain_path_has_one_reading() {
        for path in ["/", "/salary", "/salary/2026", "/app.js", "/a-b_c~d!$&'()*+,=:@"] {
            assert_eq!(Readings::of(path.as_bytes(), false).paths, [path.as_bytes()], "{path}");
        }
    }

    #[test]
    fn the_plain_check_agrees_with_the_closure() {
        for path in ["/", "/salary", "/salary/", "/salary/2026", "/app.js", "/a/b.c/d"] {
            assert!(is_plain(path.as_bytes()), "{path}");
            assert_eq!(Readings::closure(path.as_bytes()).paths, [path.as_bytes()], "{path}");
        }
    }

    #[test]
    fn known_disguises_of_a_path_are_seen_through() {
        for disguise in [
            "//salary",
            "/%2fsalary",
            "/%2Fsalary",
            "/./salary",
            "/a/..%2fsalary",
            "/.%2e/salary",
            "/a/%2e%2e/salary",
            "/a/%252e%252e/salary",
            "/%252fsalary",
            "/%255csalary",
            "/salary;x=1",
            "/;x/salary",
            "/a/..;/salary",
            "/salary#x",
            "/salary?x",
            "/sal%61ry",
            "/%73%61%6c%61%72%79",
            "/%2573alary",
            "/salary.",
            "/salary%20",
            "/salary..%20",
            "\\salary",
            "/\\salary",
            "/a\\..\\salary",
            "/a/..%5csalary",
            "/salary%00",
            "/salary%00.html",
            "/sal%09ary",
            "/sal\tary",
            "/salary%3fx",
            "/salary%23x",
            "/%ef%bd%93alary",
            "/\u{ff53}alary",
            "/a/../salary",
            "/%c0%afsalary",
            "/%c1%b3alary",
            "/%e0%80%afsalary",
            "/a/%c0%ae%c0%ae/salary",
            "salary",
            "http://app.example.com/salary",
            "/a//../salary/../salary",
            "/a/.%2e;x/salary",
            "/a/..%00/salary",
            "/.. /salary",
            "/a/..%20/salary",
            "/a/%2e%2e%2fsalary",
            "///salary",
            "//x/salary",
            "///x/salary",
            "/\\\\x/salary",
            "/%2fx/salary",
            "/salary%0d%0ax: y",
            "/%u0073alary",
            "/x/..%u002fsalary",
            "/salary;/a/b",
            "/x/%e2%80%a5/salary",
            "/x/..%e2%88%95salary",
            "/.//salary",
        ] {
            let readings = Readings::of(disguise.as_bytes(), false);
            assert!(
                readings.paths.iter().any(|path| merge_slashes(path) == b"/salary"),
                "{disguise}: {:?}",
                readings.paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn other_paths_stay_other_paths() {
        for other in ["/x?/salary", "/xsalary", "/salary2", "/x/salary", "/salary.json", "/x%3f", "/salar%79s"] {
            let readings = Readings::of(other.as_bytes(), false);
            assert!(!readings.paths.contains(&b"/salary".to_vec()), "{other}");
        }
    }

    #[test]
    fn readings_before_and_after_decoding() {
        assert!(reads_as("/a%2fb/../c", "/c"));
        assert!(reads_as("/a%2fb/../c", "/a/c"));
    }

    #[test]
    fn defects_are_named() {
        let defect = |target: &str| Readings::of(target.as_bytes(), false).defect;
        assert_eq!(defect("/a%00"), Some(PathDefect::ControlCharacter));
        assert_eq!(defect("/a%2500"), Some(PathDefect::ControlCharacter));
        assert_eq!(defect("/a\u{7f}"), Some(PathDefect::ControlCharacter));
        assert_eq!(defect("/a%"), Some(PathDefect::MalformedEscape));
        assert_eq!(defect("/a%g0"), Some(PathDefect::MalformedEscape));
        assert_eq!(defect("/a%25g0"), None, "an escaped percent sign is no malformed escape");
        assert_eq!(defect("/a%c0%af"), Some(PathDefect::OverlongEncoding));
        assert_eq!(defect(""), Some(PathDefect::Absent));
        assert_eq!(defect("/a%20b%e2%82%ac?%00%"), None, "the query is the app's business");
    }

    #[test]
    fn the_number_of_readings_and_their_bytes_are_bounded() {
        let long = format!("/{}%41", "a".repeat(MAX_READING_BYTES));
        assert_eq!(Readings::of(long.as_bytes(), false).defect, Some(PathDefect::TooManyReadings));
        let plain = format!("/{}", "a".repeat(MAX_READING_BYTES));
        assert_eq!(Readings::of(plain.as_bytes(), false).defect, None);
        let nasty = "/%252e%252e;a%253b/..%5c%3f%23%2523/%09/%ef%bc%8f. /..%20/%c0%ae/%253f;%2500//..;/x";
        let readings = Readings::of(nasty.as_bytes(), false);
        assert!(readings.paths.len() <= MAX_PATH_READINGS);
        assert_eq!(readings.defect, Some(PathDefect::TooManyReadings));
    }

    #[test]
    fn case_folds_as_case_insensitive_origins_compare() {
        assert_eq!(Readings::of("/SALARY".as_bytes(), true).paths, [b"/salary"]);
        assert!(Readings::of("/%C5%BFalary".as_bytes(), true).paths.contains(&b"/salary".to_vec()));
        let with_junk = Readings::of("/%C5%BFalary/%FF".as_bytes(), true);
        assert!(with_junk.paths.contains(&b"/salary/\xff".to_vec()), "one bad byte does not switch folding off");
    }
}
