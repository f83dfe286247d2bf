//! The pages that a person sees when neither the app nor the provider answers.

use crate::reason::Reason;

/// The title of a status.
pub const fn title(status: u16) -> &'static str {
    match status {
        400 => "This address cannot be read",
        401 => "A stronger login is needed",
        403 => "Your login was not sufficient",
        _ => "The login service does not answer",
    }
}

const fn advice(status: u16) -> &'static str {
    match status {
        400 => "Check the address for typing errors, or start from the home page.",
        403 => {
            "You were asked to log in again, but what came back still does not prove what this page needs. Close this window and try \
                again later, or tell the people who run this site what is written below."
        }
        _ => "This page needs it to check your login. Please try again in a moment.",
    }
}

/// The header fields of a page.
pub fn headers() -> [(&'static str, String); 4] {
    [
        ("content-type", "text/html; charset=utf-8".to_owned()),
        ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
        ("referrer-policy", "no-referrer".to_owned()),
    ]
}

/// Renders a page.
pub fn render(status: u16, reason: &Reason) -> String {
    let (title, advice) = (title(status), advice(status));
    let (detail, code) = (escape(&reason.to_string()), reason.code());
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><main><h1>{title}</h1><p>{advice}</p><p class=\"detail\">{detail}<br><code>{code}</code></p></main></body></html>\n"
    )
}

const STYLE: &str = ":root{color-scheme:light dark;font:16px/1.6 system-ui,sans-serif}\
body{margin:0;min-height:100vh;display:grid;place-items:center;background:light-dark(#f4f5f7,#14161a);\
color:light-dark(#1c2027,#e6e8ec)}main{max-width:32rem;margin:1.5rem;padding:2rem 2.25rem;border-radius:14px;\
background:light-dark(#fff,#1e2128);box-shadow:0 1px 3px #0003}h1{font-size:1.4rem;margin:0 0 .75rem}p{margin:.75rem 0}\
.detail{font-size:.875rem;color:light-dark(#5b6472,#9aa3b2);border-top:1px solid light-dark(#e3e6eb,#333842);padding-top:.75rem}";

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let reason = Reason::ClaimInsufficient { claim: "<script>\"'&".into() };
        let page = render(403, &reason);
        assert!(page.contains("&lt;script&gt;&quot;&#39;&amp;"));
        assert!(!page.contains("<script>"));
    }
}
