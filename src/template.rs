//! HTML with places for text: `{{name}}`. Whatever is put in is escaped.

/// A page's text and the places in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Box<str>);

/// The names of the places that a page may have.
pub const PLACES: [&str; 6] = ["title", "message", "detail", "reason", "link_url", "link_text"];

impl Template {
    /// Takes a text whose places all have a name of [`PLACES`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                return Err("has a `{{` without `}}`".to_owned());
            };
            if !PLACES.contains(&name) {
                let known = PLACES.map(|name| format!("`{{{{{name}}}}}`")).join(", ");
                return Err(format!("has a place that is none of {known}"));
            }
            rest = after;
        }
        Ok(Self(text.into()))
    }

    /// The text with a value in each place.
    #[must_use]
    pub fn render(&self, values: &[(&str, &str)]) -> String {
        render(&self.0, values)
    }
}

/// A text with a value in each place; a place without one stays empty.
#[must_use]
pub fn render(text: &str, values: &[(&str, &str)]) -> String {
    let mut page = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, (name, after))) =
        rest.split_once("{{").and_then(|(before, after)| Some((before, after.split_once("}}")?)))
    {
        page.push_str(before);
        let value = values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
        escape(value, &mut page);
        rest = after;
    }
    page + rest
}

fn escape(text: &str, page: &mut String) {
    for character in text.chars() {
        match character {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            _ => page.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_in_their_places_and_escaped() {
        let template = Template::parse("<p title=\"{{reason}}\">{{detail}}</p>{{title}}").unwrap();
        let page = template.render(&[("detail", "<script>'&\"{{reason}}"), ("reason", "r")]);
        assert_eq!(page, "<p title=\"r\">&lt;script&gt;&#39;&amp;&quot;{{reason}}</p>");
    }

    #[test]
    fn unknown_and_unfinished_places_are_refused() {
        for bad in ["{{colour}}", "{{ title }}", "{{", "a {{title", "{{}}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        assert!(Template::parse("no place } { at all }}").is_ok());
    }
}
