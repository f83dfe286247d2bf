//! Colours on a terminal, and JSON.

use std::fmt;
use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::Problem;

/// A text in a style. Whoever prints it by `anstream` leaves the style out where the output is no terminal.
pub struct Styled<'a>(Style, &'a str);

impl fmt::Display for Styled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(style, text) = self;
        // Padding counts the text alone.
        let padding = f.width().unwrap_or(0).saturating_sub(text.chars().count());
        write!(f, "{style}{text}{style:#}{:padding$}", "")
    }
}

const fn in_color(color: AnsiColor) -> Style {
    Style::new().fg_color(Some(anstyle::Color::Ansi(color)))
}

/// What is wrong.
pub const fn red(text: &str) -> Styled<'_> {
    Styled(in_color(AnsiColor::Red).bold(), text)
}

/// What is worth a look.
pub const fn yellow(text: &str) -> Styled<'_> {
    Styled(in_color(AnsiColor::Yellow), text)
}

/// What is as it should be.
pub const fn green(text: &str) -> Styled<'_> {
    Styled(in_color(AnsiColor::Green), text)
}

/// What stands in the background.
pub const fn dim(text: &str) -> Styled<'_> {
    Styled(Style::new().dimmed(), text)
}

/// A heading.
pub const fn bold(text: &str) -> Styled<'_> {
    Styled(Style::new().bold(), text)
}

/// Prints a value as JSON, for other programs.
pub fn json(value: &impl Serialize) -> Result<(), Problem> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Problem::failure(error.to_string()))?;
    // These stand in strings alone, where an escape is the same.
    let mut units = [0; 2];
    let text: String = text
        .chars()
        .map(|character| match is_harmful(character) && character != '\n' {
            true => character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
            false => character.to_string(),
        })
        .collect();
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

fn is_harmful(character: char) -> bool {
    let turns = matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    character.is_control() || turns
}

/// Prints a line beside the output. Where nobody can read it, nothing is lost.
pub fn warn(text: impl fmt::Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// A text from outside, in which nothing moves a terminal's cursor, colours it or turns the direction of writing.
pub fn plain(text: &str) -> String {
    let shown = text.chars().map(|character| match is_harmful(character) {
        true => character.escape_unicode().to_string(),
        false => character.to_string(),
    });
    shown.collect()
}

/// [`plain`], line by line.
pub fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// Prints a line, with styles where they can be shown.
pub fn line(text: impl fmt::Display) -> Result<(), Problem> {
    writeln!(anstream::stdout(), "{text}")?;
    Ok(())
}
