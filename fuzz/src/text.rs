//! Inputs are lines of text, so that seeds and regressions can be read.

use crate::world::is_field_name;

/// The first `N` lines, the last of them with all that is left; those that are missing are empty.
pub fn lines<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    split(input, b'\n')
}

/// The first `N` words, likewise.
pub fn words<const N: usize>(line: &[u8]) -> [&[u8]; N] {
    split(line, b' ')
}

fn split<const N: usize>(text: &[u8], separator: u8) -> [&[u8]; N] {
    let mut parts = text.splitn(N, |&byte| byte == separator);
    [(); N].map(|()| parts.next().unwrap_or_default())
}

/// Header fields, one in each line: `name: value`, with values in place of their names. As hosts do, it passes on no name
/// that is none (RFC 9110 section 5.1), and no control character but a tab (section 5.5).
pub fn fields(text: &[u8], values: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    let field = |line: &[u8]| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = std::str::from_utf8(&line[..colon]).ok().filter(|name| is_field_name(name))?.to_owned();
        let is_passed_on = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
        let value: Vec<u8> = line[colon + 1..].trim_ascii().iter().copied().filter(is_passed_on).collect();
        Some((name, fill(&value, values)))
    };
    text.split(|&byte| byte == b'\n').filter_map(field).collect()
}

/// Puts values in place of their names, such as `<token>`: a mutation then leaves a signature as it is and changes what is
/// around it.
pub fn fill(text: &[u8], values: &[(&str, &str)]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        match values.iter().find(|(name, _)| rest.starts_with(name.as_bytes())) {
            Some((name, value)) => {
                filled.extend(value.bytes());
                rest = &rest[name.len()..];
            }
            None => {
                filled.push(*first);
                rest = after;
            }
        }
    }
    filled
}
