//! A request's head, as JavaScript hands it over.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::http::{Fields, Request};

/// A request's head. What nearly every request is looked at for comes at once, the rest when somebody asks.
pub struct Head<'a> {
    method: Cow<'a, [u8]>,
    authority: Cow<'a, [u8]>,
    path: Cow<'a, [u8]>,
    fields: HeadFields<'a>,
    size: usize,
}

type NamesAndValues = Vec<(Vec<u8>, Vec<u8>)>;

struct HeadFields<'a> {
    /// The name of the field that may carry a token, and its values, with U+0000 between.
    header: Option<&'a str>,
    header_values: Option<Cow<'a, [u8]>>,
    cookies: Cow<'a, [u8]>,
    as_utf8: bool,
    ask: &'a dyn Fn() -> Option<String>,
    all: OnceCell<Option<NamesAndValues>>,
}

/// The lengths of a head's parts, in UTF-16 code units, as JavaScript counts. What follows them are the cookies.
#[derive(Clone, Copy)]
pub struct Lengths {
    pub method: u32,
    pub authority: u32,
    pub path: u32,
    /// None: the field is not there.
    pub header: Option<u32>,
}

impl<'a> Head<'a> {
    /// Cuts the text of a head into its parts. `as_utf8`: the runtime has decoded bytes as UTF-8, otherwise one by one. `ask`
    /// gives all fields, if it can: name, value, name, value …, with U+0000 behind each.
    pub fn new(
        text: &'a str,
        lengths: Lengths,
        header: Option<&'a str>,
        as_utf8: bool,
        ask: &'a dyn Fn() -> Option<String>,
    ) -> Self {
        let (method, rest) = cut(text, lengths.method, as_utf8);
        let (authority, rest) = cut(rest, lengths.authority, as_utf8);
        let (path, rest) = cut(rest, lengths.path, as_utf8);
        let (header_values, cookies) = match lengths.header {
            None => (None, rest),
            Some(length) => {
                let (values, cookies) = cut(rest, length, as_utf8);
                (Some(values), cookies)
            }
        };
        let cookies = sent(cookies, as_utf8);
        let all = OnceCell::new();
        let fields = HeadFields { header, header_values, cookies, as_utf8, ask, all };
        Self { method, authority, path, fields, size: text.len() }
    }

    pub fn request(&self) -> Request<'_> {
        let Self { method, authority, path, fields, .. } = self;
        Request { method, authority, path, fields }
    }

    /// Whether its client is one of gRPC, which gRPC-Web is not: to that, a plain answer is one.
    pub fn is_grpc(&self) -> bool {
        let content_type = self.request().first("content-type").unwrap_or_default();
        content_type == "application/grpc" || content_type.starts_with("application/grpc+")
    }

    /// About how many bytes it has.
    pub fn size(&self) -> usize {
        let all = self.fields.all.get().and_then(Option::as_ref);
        self.size + all.map_or(0, |all| all.iter().map(|(name, value)| name.len() + value.len()).sum())
    }
}

impl HeadFields<'_> {
    fn all(&self) -> Option<&NamesAndValues> {
        let read = || {
            let text = (self.ask)()?;
            let mut parts = text.split_terminator('\0');
            let mut fields = Vec::new();
            while let Some(name) = parts.next() {
                fields.push((name.as_bytes().to_vec(), sent(parts.next()?, self.as_utf8).into_owned()));
            }
            Some(fields)
        };
        self.all.get_or_init(read).as_ref()
    }
}

impl Fields for HeadFields<'_> {
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        let Some(all) = self.all() else { return false };
        all.iter().for_each(|(name, value)| visit(name, value));
        true
    }

    fn visit(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        if name == "cookie" {
            visit(&self.cookies);
        } else if Some(name) == self.header {
            let values = self.header_values.as_deref().map(|values| values.split(|&byte| byte == 0));
            values.into_iter().flatten().for_each(visit);
        } else {
            let matching =
                self.all().into_iter().flatten().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()));
            matching.for_each(|(_, value)| visit(value));
        }
    }
}

/// The first so many UTF-16 code units, as bytes, and the rest.
fn cut(text: &str, length: u32, as_utf8: bool) -> (Cow<'_, [u8]>, &str) {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let at = match text.as_bytes().get(..length) {
        Some(first) if first.is_ascii() => length,
        _ => {
            let mut units = 0;
            let end = text.char_indices().find(|(_, character)| {
                units += character.len_utf16();
                units > length
            });
            end.map_or(text.len(), |(at, _)| at)
        }
    };
    let (first, rest) = text.split_at_checked(at).unwrap_or((text, ""));
    (sent(first, as_utf8), rest)
}

/// The bytes that were sent.
fn sent(text: &str, as_utf8: bool) -> Cow<'_, [u8]> {
    if as_utf8 || text.is_ascii() {
        return Cow::Borrowed(text.as_bytes());
    }
    // A character that is no byte cannot have come from one: whatever it was, it is no ASCII.
    Cow::Owned(text.chars().map(|character| u8::try_from(u32::from(character)).unwrap_or(u8::MAX)).collect())
}
