//! Just enough of Markdown to hold the documentation to its word: fenced blocks, tables, headings, links, code spans.

use std::collections::BTreeSet;

/// A page, by its path in the repository.
pub struct Page {
    pub path: String,
    pub text: String,
}

/// A fenced block.
pub struct Block {
    /// What stands behind the fence, such as `yaml stepgate`.
    pub info: String,
    pub text: String,
    /// Where it is, for messages.
    pub place: String,
}

impl Page {
    pub fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(super::root(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { path: path.to_owned(), text }
    }

    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut open = false;
        for (number, line) in self.text.lines().enumerate() {
            match line.strip_prefix("```") {
                Some(info) if !open => {
                    let place = format!("{}:{}", self.path, number + 1);
                    blocks.push(Block { info: info.to_owned(), text: String::new(), place });
                    open = true;
                }
                Some(rest) => {
                    assert_eq!(rest, "", "{}:{}: a fence closes alone", self.path, number + 1);
                    open = false;
                }
                None if open => {
                    let block = blocks.last_mut().expect("an open block");
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                None => {}
            }
        }
        assert!(!open, "{}: a fence is not closed", self.path);
        blocks
    }

    /// The block of that kind, of which there is one.
    pub fn block(&self, info: &str) -> Block {
        let mut found = self.blocks().into_iter().filter(|block| block.info == info);
        let block = found.next().unwrap_or_else(|| panic!("{}: no block `{info}`", self.path));
        assert!(found.next().is_none(), "{}: several blocks `{info}`", self.path);
        block
    }

    /// The lines outside fenced blocks.
    pub fn prose(&self) -> Vec<&str> {
        let mut open = false;
        let outside = |line: &&str| {
            let fence = line.starts_with("```");
            open ^= fence;
            !open && !fence
        };
        self.text.lines().filter(outside).collect()
    }

    /// The rows of the table that first follows a heading, without the head.
    pub fn table(&self, heading: &str) -> Vec<Vec<String>> {
        let prose = self.prose();
        let start = prose.iter().position(|line| *line == heading);
        let start = start.unwrap_or_else(|| panic!("{}: no heading `{heading}`", self.path));
        let rows: Vec<Vec<String>> = prose[start + 1..]
            .iter()
            .take_while(|line| !line.starts_with('#'))
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
            .collect();
        assert!(rows.len() > 2, "{}: no table under `{heading}`", self.path);
        assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{}: a row under `{heading}` is ragged", self.path);
        rows[2..].to_vec()
    }

    /// The anchors of all headings, as GitHub makes them.
    pub fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose().into_iter().filter_map(|line| line.strip_prefix('#'));
        headings
            .map(|heading| {
                let kept = heading.trim_start_matches('#').trim().chars().filter_map(|character| match character {
                    ' ' => Some('-'),
                    '-' | '_' => Some(character),
                    _ => character.is_alphanumeric().then(|| character.to_ascii_lowercase()),
                });
                kept.collect()
            })
            .collect()
    }

    /// The targets of all links.
    pub fn links(&self) -> Vec<String> {
        let prose = self.prose().join("\n");
        prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
    }

    /// What stands in code spans.
    pub fn spans(&self) -> Vec<String> {
        let prose = self.prose().join("\n");
        prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }
}

/// What stands in the code spans of a table's cell.
pub fn spans(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
