//! Path patterns (`*` is one segment, `**` any number) and an index over many of them.

use std::collections::BTreeMap;
use std::fmt;

use super::readings::fold_case;

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<[u8]>),
    One,
    AnyNumber,
}

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "`Display` says it")]
pub enum PatternError {
    NoLeadingSlash,
    TrailingSlash,
    EmptySegment,
    PartialWildcard,
    DotSegment,
    TrailingDotOrSpace,
    ForeignCharacter(char),
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLeadingSlash => f.write_str("a path that starts with `/`"),
            Self::TrailingSlash => {
                f.write_str("a path without a slash at its end (`/a` is the page itself, `/a/**` also all below it)")
            }
            Self::EmptySegment => f.write_str("a path without empty segments (`//`)"),
            Self::PartialWildcard => f.write_str("`*` or `**` as whole segments"),
            Self::DotSegment => f.write_str("a path without `.` and `..` segments"),
            Self::TrailingDotOrSpace => f.write_str("a path whose segments do not end in a dot or a space"),
            Self::ForeignCharacter(character) => {
                write!(f, "a decoded path without query: no {character:?}")
            }
        }
    }
}

impl PathPattern {
    /// Parses a pattern, such as `/salary/**`.
    ///
    /// # Errors
    /// When the pattern could never match a path's canonical reading, or does not mean what it seems to.
    pub fn parse(pattern: &str) -> Result<Self, PatternError> {
        let foreign = |character: &char| character.is_control() || matches!(character, '%' | '?' | '#' | '\\' | ';');
        if let Some(character) = pattern.chars().find(foreign) {
            return Err(PatternError::ForeignCharacter(character));
        }
        let relative = pattern.strip_prefix('/').ok_or(PatternError::NoLeadingSlash)?;
        if relative.is_empty() {
            return Ok(Self { segments: Vec::new() });
        }
        if relative.ends_with('/') {
            return Err(PatternError::TrailingSlash);
        }
        let segments = relative
            .split('/')
            .map(|segment| match segment {
                "" => Err(PatternError::EmptySegment),
                "*" => Ok(Segment::One),
                "**" => Ok(Segment::AnyNumber),
                "." | ".." => Err(PatternError::DotSegment),
                _ if segment.contains('*') => Err(PatternError::PartialWildcard),
                _ if segment.ends_with(['.', ' ']) => Err(PatternError::TrailingDotOrSpace),
                _ => Ok(Segment::Literal(segment.as_bytes().into())),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { segments })
    }

    /// Whether every path that `other` matches is matched by this pattern too. Of patterns that take turns with their wildcards
    /// it may say no where that is so.
    #[cfg(not(target_family = "wasm"))]
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        covers(&self.segments, &other.segments)
    }
}

#[cfg(not(target_family = "wasm"))]
fn covers(mine: &[Segment], theirs: &[Segment]) -> bool {
    match (mine.split_first(), theirs.split_first()) {
        (None, None) => true,
        (Some((Segment::AnyNumber, rest)), None) => covers(rest, &[]),
        (Some((Segment::AnyNumber, rest)), Some((_, theirs_rest))) => covers(mine, theirs_rest) || covers(rest, theirs),
        (Some((Segment::One, rest)), Some((Segment::One | Segment::Literal(_), theirs_rest))) => {
            covers(rest, theirs_rest)
        }
        (Some((Segment::Literal(mine), rest)), Some((Segment::Literal(theirs), theirs_rest))) => {
            mine == theirs && covers(rest, theirs_rest)
        }
        _ => false,
    }
}

/// Patterns with a value each, looked up together: the cost depends on the path, hardly on the number of patterns.
#[derive(Clone, Debug)]
pub struct PathIndex<T> {
    nodes: Vec<Node<T>>,
    case_insensitive: bool,
}

#[derive(Clone, Debug)]
struct Node<T> {
    literal: BTreeMap<Box<[u8]>, usize>,
    one: Option<usize>,
    any_number: Option<usize>,
    /// Reached by `**`: stays active whatever segment comes.
    repeats: bool,
    values: Vec<T>,
}

impl<T> Node<T> {
    const fn new(repeats: bool) -> Self {
        Self { literal: BTreeMap::new(), one: None, any_number: None, repeats, values: Vec::new() }
    }
}

const ROOT: usize = 0;

impl<T: Copy> PathIndex<T> {
    /// An index without patterns.
    #[must_use]
    pub fn new(case_insensitive: bool) -> Self {
        Self { nodes: vec![Node::new(false)], case_insensitive }
    }

    /// Adds a pattern.
    pub fn insert(&mut self, pattern: &PathPattern, value: T) {
        let end = pattern.segments.iter().fold(ROOT, |node, segment| self.child(node, segment));
        if let Some(node) = self.nodes.get_mut(end) {
            node.values.push(value);
        }
    }

    fn child(&mut self, parent: usize, segment: &Segment) -> usize {
        let next = self.nodes.len();
        let fold = self.case_insensitive;
        let Some(node) = self.nodes.get_mut(parent) else { return ROOT };
        let child = match segment {
            Segment::Literal(literal) => {
                let literal = if fold { fold_case(literal).into() } else { literal.clone() };
                *node.literal.entry(literal).or_insert(next)
            }
            Segment::One => *node.one.get_or_insert(next),
            Segment::AnyNumber => *node.any_number.get_or_insert(next),
        };
        if child == next {
            self.nodes.push(Node::new(*segment == Segment::AnyNumber));
        }
        child
    }

    /// Calls `found` with the value of each pattern that matches the path, perhaps more than once. Empty segments, such as a
    /// trailing slash makes, do not count; between others, `*` may also match one. With `case_insensitive` the path must be folded already, as [`super::Readings`]
    /// does.
    pub fn matching(&self, path: &[u8], mut found: impl FnMut(T)) {
        self.walk(path.split(|&byte| byte == b'/').filter(|segment| !segment.is_empty()), false, &mut found);
        let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        let path = path.get(..end).unwrap_or_default();
        if path.windows(2).any(|pair| pair == b"//") {
            let relative = path.strip_prefix(b"/").unwrap_or(path);
            self.walk(relative.split(|&byte| byte == b'/'), true, &mut found);
        }
    }

    /// Whether any pattern matches the path as it is: an empty segment is one that only `**` matches.
    #[must_use]
    pub fn matches_exactly(&self, path: &[u8]) -> bool {
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        let mut any = false;
        let segments = relative.split(|&byte| byte == b'/').skip(usize::from(relative.is_empty()));
        self.walk(segments, false, &mut |_| any = true);
        any
    }

    fn walk<'a>(&self, segments: impl Iterator<Item = &'a [u8]>, one_may_be_empty: bool, found: &mut dyn FnMut(T)) {
        let mut active = Vec::new();
        let mut next = Vec::new();
        self.activate(ROOT, &mut active);
        for segment in segments {
            for node in active.drain(..) {
                let Some(state) = self.nodes.get(node) else { continue };
                if state.repeats {
                    self.activate(node, &mut next);
                }
                let one = state.one.filter(|_| one_may_be_empty || !segment.is_empty());
                for child in [state.literal.get(segment).copied(), one].into_iter().flatten() {
                    self.activate(child, &mut next);
                }
            }
            std::mem::swap(&mut active, &mut next);
            if active.is_empty() {
                return;
            }
        }
        let ends = active.into_iter().filter_map(|node| self.nodes.get(node));
        ends.flat_map(|node| &node.values).for_each(|&value| found(value));
    }

    /// Every value, once per pattern.
    pub fn values(&self) -> impl Iterator<Item = T> {
        self.nodes.iter().flat_map(|node| node.values.iter().copied())
    }

    /// Makes a node active, and what `**` reaches from it without a segment.
    fn activate(&self, node: usize, active: &mut Vec<usize>) {
        let mut reached = Some(node);
        while let Some(node) = reached {
            if active.contains(&node) {
                return;
            }
            active.push(node);
            reached = self.nodes.get(node).and_then(|node| node.any_number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_another_where_it_matches_all_of_it() {
        let covers =
            |mine: &str, theirs: &str| PathPattern::parse(mine).unwrap().covers(&PathPattern::parse(theirs).unwrap());
        for (mine, theirs) in [
            ("/a", "/a"),
            ("/a/**", "/a"),
            ("/a/**", "/a/*"),
            ("/a/**", "/a/b/**"),
            ("/**", "/"),
            ("/**", "/a/*/c/**"),
            ("/a/*", "/a/b"),
            ("/*/b", "/a/b"),
            ("/**/b", "/a/b"),
            ("/**/b", "/b"),
            ("/**/**", "/a/**"),
        ] {
            assert!(covers(mine, theirs), "{mine} covers {theirs}");
        }
        for (mine, theirs) in [
            ("/a", "/b"),
            ("/a", "/a/**"),
            ("/a/*", "/a"),
            ("/a/*", "/a/**"),
            ("/a/b", "/a/*"),
            ("/a/**", "/**"),
            ("/a/*", "/a/b/c"),
            ("/**/b", "/**"),
            ("/", "/**"),
        ] {
            assert!(!covers(mine, theirs), "{mine} does not cover {theirs}");
        }
    }

    fn index(pattern: &str) -> PathIndex<()> {
        let mut index = PathIndex::new(false);
        index.insert(&PathPattern::parse(pattern).unwrap(), ());
        index
    }

    fn matches<T: Copy>(index: &PathIndex<T>, path: &str) -> bool {
        let mut any = false;
        index.matching(path.as_bytes(), |_| any = true);
        any
    }

    #[test]
    fn an_exact_match_counts_empty_segments() {
        for (pattern, path, expected) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a//b", false),
            ("/a/b", "/a/b/", false),
            ("/a/b", "//a/b", false),
            ("/a/*", "/a/", false),
            ("/a/**", "/a/", true),
            ("/a/**", "/a//b", true),
            ("/", "/", true),
            ("/", "//", false),
        ] {
            assert_eq!(index(pattern).matches_exactly(path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn wildcards_are_segments() {
        for (pattern, path, expected) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/a", "/a", true),
            ("/a", "/a/", true),
            ("/a", "/a/b", false),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a", false),
            ("/a/*", "/a/", false),
            ("/a/*", "/a/b/c", false),
            ("/a/**", "/a", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/ab", false),
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/**/admin", "/admin", true),
            ("/**/admin", "/a/b/admin", true),
            ("/**/admin", "/a/admin/b", false),
            ("/a/**/b/*/c", "/a/x/b/b/y/c", true),
            ("/a/**/b/*/c", "/a/b/c", false),
            ("/**/**", "/", true),
            ("/*/b", "//b", true),
            ("/users/*/salary", "/users//salary", true),
        ] {
            assert_eq!(matches(&index(pattern), path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_that_could_mislead_are_refused() {
        for (pattern, error) in [
            ("", PatternError::NoLeadingSlash),
            ("salary", PatternError::NoLeadingSlash),
            ("/salary/", PatternError::TrailingSlash),
            ("/a//b", PatternError::EmptySegment),
            ("/a*", PatternError::PartialWildcard),
            ("/a/***", PatternError::PartialWildcard),
            ("/a/../b", PatternError::DotSegment),
            ("/a./b", PatternError::TrailingDotOrSpace),
            ("/a?b", PatternError::ForeignCharacter('?')),
            ("/a%20b", PatternError::ForeignCharacter('%')),
            ("/a\nb", PatternError::ForeignCharacter('\n')),
        ] {
            assert_eq!(PathPattern::parse(pattern), Err(error), "{pattern:?}");
        }
    }

    #[test]
    fn a_thousand_patterns_cost_a_path_few_steps() {
        let mut index = PathIndex::new(false);
        for number in 0..1000 {
            index.insert(&PathPattern::parse(&format!("/area{number}/**")).unwrap(), number);
        }
        let mut found = Vec::new();
        index.matching(b"/area7/x", |value| found.push(value));
        assert_eq!(found, [7]);
        let mut active = Vec::new();
        index.activate(ROOT, &mut active);
        assert_eq!(active, [ROOT], "one node is active, whatever the number of patterns");
        assert!(!matches(&index, "/news"));
    }
}
