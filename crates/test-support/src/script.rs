//! The format of golden scripts: read, run against a fixture, and written back.
//!
//! ```text
//! # A comment stands at the start of a line, anywhere but in expected output.
//! define                          a command begins at the start of a line: a name, then arguments
//!   L1: 4[a#9 delete]             indented lines are its body, without the common indentation
//!   L2: 2[a#3 put .. c#5 put]
//! compact L1                      a second command of the same block
//! ----                            from here to the next empty line stands what the block prints
//!   L2: 5[c#5 put]
//! ```
//!
//! - A block is one or more commands up to an empty line; its output is that of its commands, one after the other.
//! - A block without `----` must print nothing.
//! - White space at the ends of output lines, and empty lines at the end of the output, do not count. An empty line in
//!   the middle is written as a lone `.`; a line of n dots as n + 1 dots.
//! - Arguments are separated by white space; `"..."` keeps it, so that `""` is the empty argument. A `#` after the start
//!   of a line means nothing special.

use std::fmt;

use crate::diff::diff;

/// What a script drives: made anew for every file, so that stories do not depend on each other.
pub trait Fixture {
    /// Runs one command and returns what it prints. An unknown command is a mistake in the script: panic (see
    /// [`Command::unknown`]). An error of the code under test is output like any other.
    fn run(&mut self, command: &Command) -> String;
}

/// One command of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    line_number: usize,
    line: String,
    words: Vec<String>,
    body: String,
}

impl Command {
    /// The command that `line` and `body` say.
    ///
    /// # Panics
    /// If the line is blank, or a quote is left open.
    pub fn new(line_number: usize, line: &str, body: &str) -> Self {
        let words = split_words(line).unwrap_or_else(|| panic!("line {line_number}: open quote in `{line}`"));
        assert!(!words.is_empty(), "line {line_number}: a command needs a name");
        Self { line_number, line: line.trim_end().to_string(), words, body: body.to_string() }
    }

    /// The first word.
    pub fn name(&self) -> &str {
        &self.words[0]
    }

    /// The whole line, as it stands in the script.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Where it stands in its file, counted from 1.
    pub fn line_number(&self) -> usize {
        self.line_number
    }

    /// The words after the name, without quotes; escapes are kept (see [`unescape`]).
    pub fn args(&self) -> &[String] {
        &self.words[1..]
    }

    /// The argument at `index`, counted from 0.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn arg(&self, index: usize) -> &str {
        let arg = self.args().get(index);
        arg.unwrap_or_else(|| panic!("line {}: `{}` needs {} arguments", self.line_number, self.line, index + 1))
    }

    /// The argument at `index` as bytes, escapes resolved.
    ///
    /// # Panics
    /// If it is missing, or has a malformed escape.
    pub fn bytes(&self, index: usize) -> Vec<u8> {
        self.unescaped(self.arg(index))
    }

    /// The argument at `index` as a number (or anything else that parses).
    ///
    /// # Panics
    /// If it is missing or does not parse.
    pub fn parse<T: std::str::FromStr>(&self, index: usize) -> T {
        self.parsed(self.arg(index))
    }

    /// What follows `name=` in the first argument that begins so.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.args().iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='))
    }

    /// The option called `name`, as a number (or anything else that parses), or `default` if it is not given.
    ///
    /// # Panics
    /// If it does not parse.
    pub fn option_or<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        self.option(name).map_or(default, |text| self.parsed(text))
    }

    /// Whether an argument is exactly `word`.
    pub fn has(&self, word: &str) -> bool {
        self.args().iter().any(|arg| arg == word)
    }

    /// The indented lines under the command, without their common indentation; empty if there are none.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// The lines of the body as commands of their own, numbered as in the file.
    pub fn body_commands(&self) -> impl Iterator<Item = Command> {
        let lines = self.body.lines().zip(self.line_number + 1..);
        lines.map(|(line, number)| Command::new(number, line.trim_start(), ""))
    }

    /// Refuses a command that the fixture does not know.
    ///
    /// # Panics
    /// Always.
    pub fn unknown(&self) -> ! {
        panic!("line {}: unknown command `{}`", self.line_number, self.line)
    }

    fn unescaped(&self, text: &str) -> Vec<u8> {
        unescape(text).unwrap_or_else(|| panic!("line {}: malformed escape in `{text}`", self.line_number))
    }

    fn parsed<T: std::str::FromStr>(&self, text: &str) -> T {
        let kind = std::any::type_name::<T>();
        text.parse().unwrap_or_else(|_| panic!("line {}: `{text}` is no {kind}", self.line_number))
    }
}

/// The bytes that `text` means: `\xNN`, `\n`, `\r`, `\t`, `\0`, `\\`, `\"`, `\'`, everything else as it stands. Reads what
/// `<[u8]>::escape_ascii` writes. `None` if an escape is malformed.
///
/// ```
/// let key = b"a\x00\xff\"b\\";
/// assert_eq!(test_support::unescape(&key.escape_ascii().to_string()).as_deref(), Some(&key[..]));
/// assert_eq!(test_support::unescape("\\xZZ"), None);
/// ```
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut unescaped = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        unescaped.push(match byte {
            b'\\' => match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'0' => 0,
                plain @ (b'\\' | b'"' | b'\'') => plain,
                b'x' => {
                    let high = char::from(bytes.next()?).to_digit(16)?;
                    let low = char::from(bytes.next()?).to_digit(16)?;
                    (high * 16 + low) as u8
                }
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(unescaped)
}

/// The words of a line; quotes go, escapes stay. `None` if a quote is left open.
fn split_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut quoted, mut escaped) = (false, false);
    for character in line.chars() {
        match character {
            _ if escaped => {
                word.get_or_insert_default().push(character);
                escaped = false;
            }
            '\\' => {
                word.get_or_insert_default().push(character);
                escaped = true;
            }
            '"' => {
                word.get_or_insert_default();
                quoted = !quoted;
            }
            space if space.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    (!quoted).then_some(words)
}

/// A parsed script: every line of the file in order, so that it can be written back with other output.
#[derive(Debug)]
pub struct Script {
    parts: Vec<Part>,
}

/// What a script consists of.
#[derive(Debug)]
enum Part {
    /// Empty lines and comments between blocks, as they stand.
    Between(String),
    Block(Block),
}

/// Commands and what they print together.
#[derive(Debug)]
struct Block {
    /// The lines up to `----`, as they stand.
    text: String,
    commands: Vec<Command>,
    /// Whether the block has a `----` line.
    expects: bool,
    /// The lines after it, as they stand in the file.
    expected: String,
    /// Where the expected output begins, counted from 1; if there is none, the line after the block.
    expected_line: usize,
}

/// One block whose output was not what the script expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The line of the script at which the expected output begins, counted from 1.
    pub line: usize,
    /// The commands of the block, as they stand.
    pub commands: String,
    /// Expected against found output, as [`diff`] draws it.
    pub diff: String,
}

/// Draws the mismatch without its file: `line 7`, the commands, the difference.
impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}:\n{}----\n{}", self.line, self.commands, self.diff)
    }
}

impl Script {
    /// The script that `text` says.
    ///
    /// # Panics
    /// If a body or a `----` has no command before it: the message names the line.
    pub fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let mut parts = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            let start = at;
            while at < lines.len() && (lines[at].trim().is_empty() || lines[at].starts_with('#')) {
                at += 1;
            }
            if at > start {
                parts.push(Part::Between(lines_as_text(&lines[start..at])));
            }
            if at < lines.len() {
                let (block, next) = Block::parse(&lines, at);
                parts.push(Part::Block(block));
                at = next;
            }
        }
        Self { parts }
    }

    /// Runs the script and returns it as text with the output that `fixture` printed, and every difference.
    ///
    /// A mismatch does not stop the script: one run shows them all. A panic of the fixture does; `at_command` is told of
    /// every command before it runs, so that a caller can say where.
    pub fn run(&self, fixture: &mut dyn Fixture, mut at_command: impl FnMut(&Command)) -> (String, Vec<Mismatch>) {
        let (mut rewritten, mut mismatches) = (String::new(), Vec::new());
        for part in &self.parts {
            match part {
                Part::Between(text) => rewritten.push_str(text),
                Part::Block(block) => {
                    let mut output = String::new();
                    for command in &block.commands {
                        at_command(command);
                        let printed = fixture.run(command);
                        output.push_str(printed.trim_end());
                        if !printed.trim_end().is_empty() {
                            output.push('\n');
                        }
                    }
                    let output = as_written(&output);
                    rewritten.push_str(&block.text);
                    if block.expects || !output.is_empty() {
                        rewritten.push_str("----\n");
                    }
                    rewritten.push_str(&output);
                    if trimmed_lines(&block.expected) != output {
                        mismatches.push(Mismatch {
                            line: block.expected_line,
                            commands: block.text.clone(),
                            diff: diff(&trimmed_lines(&block.expected), &output),
                        });
                    }
                }
            }
        }
        (rewritten, mismatches)
    }

    /// How many commands it has.
    pub fn commands(&self) -> usize {
        let blocks = self.parts.iter().map(|part| if let Part::Block(block) = part { block.commands.len() } else { 0 });
        blocks.sum()
    }
}

impl Block {
    /// The block that begins at `lines[start]`, and the index of the line after it.
    fn parse(lines: &[&str], start: usize) -> (Self, usize) {
        let mut commands = Vec::new();
        let mut at = start;
        while at < lines.len() && !lines[at].trim().is_empty() && lines[at].trim_end() != "----" {
            let (line, number) = (lines[at], at + 1);
            at += 1;
            if line.starts_with('#') {
                continue;
            }
            assert!(!line.starts_with(char::is_whitespace), "line {number}: an indented line without a command above");
            let body = at;
            while at < lines.len() && lines[at].starts_with(char::is_whitespace) && !lines[at].trim().is_empty() {
                at += 1;
            }
            commands.push(Command::new(number, line, &without_common_indentation(&lines[body..at])));
        }
        assert!(!commands.is_empty(), "line {}: `----` without a command above", at + 1);
        let text = lines_as_text(&lines[start..at]);
        let expects = lines.get(at).is_some_and(|line| line.trim_end() == "----");
        at += usize::from(expects);
        let expected = at;
        if expects {
            while at < lines.len() && !lines[at].trim().is_empty() {
                at += 1;
            }
        }
        let expected_text = lines_as_text(&lines[expected..at]);
        (Self { text, commands, expects, expected: expected_text, expected_line: expected + 1 }, at)
    }
}

fn lines_as_text(lines: &[&str]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

fn without_common_indentation(lines: &[&str]) -> String {
    let indentation = |line: &&str| line.len() - line.trim_start().len();
    let common = lines.iter().map(indentation).min().unwrap_or(0);
    lines_as_text(&lines.iter().map(|line| &line[common..]).collect::<Vec<_>>())
}

fn trimmed_lines(text: &str) -> String {
    lines_as_text(&text.lines().map(str::trim_end).collect::<Vec<_>>())
}

/// Output as it stands in a script: line ends trimmed, empty lines as dots.
fn as_written(output: &str) -> String {
    let lines = output.lines().map(str::trim_end).map(|line| {
        let only_dots = line.bytes().all(|byte| byte == b'.');
        if only_dots { format!("{line}.\n") } else { format!("{line}\n") }
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints what it is told: `say WORD...`, `body`, `nothing`.
    struct Echo;

    impl Fixture for Echo {
        fn run(&mut self, command: &Command) -> String {
            match command.name() {
                "say" => command.args().join("\n"),
                "body" => command.body().to_string(),
                "nothing" => String::new(),
                _ => command.unknown(),
            }
        }
    }

    fn run(text: &str) -> (String, Vec<Mismatch>) {
        Script::parse(text).run(&mut Echo, |_| {})
    }

    #[test]
    fn a_script_that_holds_is_written_back_unchanged() {
        let text =
            "# Story.\n\nsay one\n# between\nbody\n    deep\n  less\n----\none\n  deep\nless\n\nnothing\n\n# End.\n";
        let (rewritten, mismatches) = run(text);
        assert_eq!(mismatches, []);
        assert_eq!(rewritten, text);
    }

    #[test]
    fn a_difference_names_its_line_and_update_mends_it() {
        let text = "say one two\n----\none\nthree\n\nsay x\n";
        let (rewritten, mismatches) = run(text);
        assert_eq!(mismatches.len(), 2);
        assert_eq!((mismatches[0].line, mismatches[0].diff.as_str()), (3, "  one\n- three\n+ two\n"));
        assert_eq!((mismatches[1].line, mismatches[1].diff.as_str()), (7, "+ x\n"));
        assert_eq!(rewritten, "say one two\n----\none\ntwo\n\nsay x\n----\nx\n");
        assert_eq!(run(&rewritten).1, []);
    }

    #[test]
    fn empty_lines_and_dots_of_the_output_survive() {
        let (rewritten, mismatches) = run("say a \"\" . b\n----\n");
        assert_eq!(mismatches.len(), 1);
        assert_eq!(rewritten, "say a \"\" . b\n----\na\n.\n..\nb\n");
        assert_eq!(run(&rewritten).1, []);
    }

    #[test]
    fn arguments_keep_quoted_space_and_escapes() {
        let command = Command::new(1, r#"put "a b" "" x\"y seqno=7 \x00\xff"#, "");
        assert_eq!(command.args(), ["a b", "", "x\\\"y", "seqno=7", "\\x00\\xff"]);
        assert_eq!(command.bytes(1), b"");
        assert_eq!(command.bytes(2), b"x\"y");
        assert_eq!(command.bytes(4), b"\x00\xff");
        assert_eq!(command.option("seqno"), Some("7"));
        assert_eq!(command.option_or("seqno", 0_u64), 7);
        assert_eq!(command.option_or("level", 3_u8), 3);
        assert!(command.has("seqno=7") && !command.has("seqno"));
    }

    #[test]
    fn every_byte_survives_escaping() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(unescape(&all.escape_ascii().to_string()), Some(all));
        for malformed in ["\\", "\\x", "\\x1", "\\xg0", "\\q"] {
            assert_eq!(unescape(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn body_lines_are_commands_with_their_own_line_numbers() {
        let script = Script::parse("# c\ndefine\n  put a 1\n  put b 2\n");
        let Part::Block(block) = &script.parts[1] else { panic!("a block") };
        let lines: Vec<_> =
            block.commands[0].body_commands().map(|c| (c.line_number(), c.arg(0).to_string())).collect();
        assert_eq!(lines, [(3, "a".to_string()), (4, "b".to_string())]);
    }

    #[test]
    #[should_panic(expected = "line 2: unknown command `what`")]
    fn an_unknown_command_is_refused() {
        run("nothing\nwhat\n");
    }

    #[test]
    #[should_panic(expected = "line 1: `----` without a command above")]
    fn output_without_a_command_is_refused() {
        run("----\nx\n");
    }

    #[test]
    #[should_panic(expected = "line 1: open quote")]
    fn an_open_quote_is_refused() {
        run("say \"x\n");
    }
}
