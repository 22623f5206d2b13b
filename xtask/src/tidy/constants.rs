//! Constants that `docs/format.md` gives are those of the source.
//!
//! A document says `` `NAME = value` `` in backticks, or `` `crate::NAME = value` `` where two crates have the name. The
//! value is a number (decimal or hexadecimal, with underscores) or a byte string `b"..."`; the source may write it as a sum,
//! product or shift of numbers, of other constants of its file, and of sizes of integers.

use std::collections::HashMap;

use super::Finding;
use super::source::{File, Tree, backticked, lines_before_tests};
use crate::shell::Workspace;

const DOCUMENT: &str = "docs/format.md";

/// Compares what the document gives with what the source computes.
pub(crate) fn check(tree: &Tree, _: &Workspace) -> Vec<Finding> {
    let Some(document) = tree.file(DOCUMENT) else {
        return vec![Finding::new(DOCUMENT, 0, "is missing: it draws every byte")];
    };
    let constants = constants_of(tree);
    let mut findings = Vec::new();
    let mut given = 0;
    for (line, text) in document.lines() {
        for (name, value) in backticked(text).filter_map(|code| code.split_once(" = ")) {
            let mut find = |message: String| findings.push(Finding::new(DOCUMENT, line, message));
            let (owner, constant) = name.rsplit_once("::").map_or((None, name), |(owner, name)| (Some(owner), name));
            if !is_constant_name(constant) {
                continue;
            }
            given += 1;
            let found: Vec<&Constant> = constants
                .iter()
                .filter(|it| it.name == constant && owner.is_none_or(|owner| it.owner == owner))
                .collect();
            match found[..] {
                [] => find(format!("{name} is no constant of the source")),
                [one] => match one.value(&constants) {
                    Some(computed) if Some(&computed) == Value::parse(value).as_ref() => {}
                    Some(computed) => find(format!("{name} is {computed} in {} and not {value}", one.file)),
                    None => find(format!("{name}: the value `{}` is not understood", one.expression)),
                },
                _ => find(format!("{name} is defined by several crates: write `crate::{constant}`")),
            }
        }
    }
    if given == 0 {
        findings.push(Finding::new(DOCUMENT, 0, "gives no constant as `NAME = value`"));
    }
    findings
}

/// What a constant can be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number(u128),
    Bytes(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number} ({number:#x})"),
            Self::Bytes(bytes) => write!(f, "b\"{bytes}\""),
        }
    }
}

impl Value {
    /// A literal.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('*');
        if let Some(bytes) = text.strip_prefix("b\"") {
            return Some(Self::Bytes(bytes.strip_suffix('"')?.to_string()));
        }
        let digits: String = text.chars().filter(|character| *character != '_').collect();
        let digits = digits.split(['u', 'i']).next()?;
        let number = match digits.strip_prefix("0x") {
            Some(hexadecimal) => u128::from_str_radix(hexadecimal, 16).ok()?,
            None => digits.parse().ok()?,
        };
        Some(Self::Number(number))
    }
}

/// A constant as the source defines it.
#[derive(Debug)]
struct Constant {
    name: String,
    /// Its crate.
    owner: String,
    file: String,
    expression: String,
}

impl Constant {
    fn value(&self, all: &[Constant]) -> Option<Value> {
        let literal = Value::parse(&self.expression);
        literal.or_else(|| evaluate(&self.expression, &self.scope(all)).map(Value::Number))
    }

    /// The numbers that the expression may name: those of its own crate.
    fn scope<'a>(&self, all: &'a [Constant]) -> HashMap<&'a str, u128> {
        let mut scope = HashMap::new();
        // A constant that is computed from others resolves once they have.
        for _ in 0..4 {
            for other in all.iter().filter(|other| other.owner == self.owner && other.name != self.name) {
                if let Some(value) = evaluate(&other.expression, &scope) {
                    scope.insert(other.name.as_str(), value);
                }
            }
        }
        scope
    }
}

fn is_constant_name(name: &str) -> bool {
    let allowed = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    allowed && name.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Every constant of shipped code.
fn constants_of(tree: &Tree) -> Vec<Constant> {
    let shipped = tree.files.iter().filter(|file| file.is_shipped_rust() && file.crate_name().is_some());
    shipped.flat_map(constants_in).collect()
}

fn constants_in(file: &File) -> Vec<Constant> {
    let lines: Vec<&str> = lines_before_tests(file).map(|(_, line)| line).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((before, after)) = line.split_once("const ") else { continue };
        if !before.trim().is_empty() && !before.trim().starts_with("pub") {
            continue;
        }
        // Up to the semicolon, which may stand lines below.
        let statement = [&[after], &lines[at + 1..lines.len().min(at + 6)]].concat().join(" ");
        let Some((name, rest)) = statement.split_once(':') else { continue };
        let Some((_, expression)) = rest.split_once('=') else { continue };
        let Some((expression, _)) = expression.split_once(';') else { continue };
        if is_constant_name(name.trim()) {
            found.push(Constant {
                name: name.trim().to_string(),
                owner: file.crate_name().unwrap_or_default().to_string(),
                file: file.path.display().to_string(),
                expression: expression.trim().to_string(),
            });
        }
    }
    found
}

/// A sum, product or shift of numbers, named constants and sizes; `None` if there is anything else in it.
fn evaluate(expression: &str, scope: &HashMap<&str, u128>) -> Option<u128> {
    let tokens = tokens(expression)?;
    let mut parser = Parser { tokens: &tokens, scope };
    let value = parser.shift()?;
    parser.tokens.is_empty().then_some(value)
}

/// Words and operators; sizes of integers and maxima become numbers.
fn tokens(expression: &str) -> Option<Vec<String>> {
    let mut text = expression.to_string();
    for (name, bytes) in [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8), ("u128", 16)] {
        let bytes: u32 = bytes;
        text = text.replace(&format!("size_of::<{name}>()"), &bytes.to_string());
        text = text.replace(&format!("{name}::MAX"), &(u128::MAX >> (128 - 8 * bytes)).to_string());
        text = text.replace(&format!(" as {name}"), "");
    }
    text = text.replace(" as usize", "").replace("Self::", "");
    let mut tokens: Vec<String> = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            space if space.is_whitespace() => {}
            '<' if characters.next_if_eq(&'<').is_some() => tokens.push("<<".to_string()),
            '+' | '-' | '*' | '/' | '(' | ')' => tokens.push(character.to_string()),
            first if first.is_ascii_alphanumeric() || first == '_' => {
                let mut word = String::from(first);
                while let Some(next) = characters.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
                    word.push(next);
                }
                tokens.push(word);
            }
            _ => return None,
        }
    }
    Some(tokens)
}

/// Shifts bind loosest, products tightest, as in Rust.
struct Parser<'a> {
    tokens: &'a [String],
    scope: &'a HashMap<&'a str, u128>,
}

impl Parser<'_> {
    fn take(&mut self, operator: &str) -> bool {
        match self.tokens.split_first() {
            Some((first, rest)) if first == operator => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    fn shift(&mut self) -> Option<u128> {
        let mut value = self.sum()?;
        while self.take("<<") {
            value = value.checked_shl(self.sum()?.try_into().ok()?)?;
        }
        Some(value)
    }

    fn sum(&mut self) -> Option<u128> {
        let mut value = self.product()?;
        loop {
            if self.take("+") {
                value = value.checked_add(self.product()?)?;
            } else if self.take("-") {
                value = value.checked_sub(self.product()?)?;
            } else {
                return Some(value);
            }
        }
    }

    fn product(&mut self) -> Option<u128> {
        let mut value = self.atom()?;
        loop {
            if self.take("*") {
                value = value.checked_mul(self.atom()?)?;
            } else if self.take("/") {
                value = value.checked_div(self.atom()?)?;
            } else {
                return Some(value);
            }
        }
    }

    fn atom(&mut self) -> Option<u128> {
        if self.take("(") {
            let value = self.shift()?;
            return self.take(")").then_some(value);
        }
        let (word, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        match Value::parse(word) {
            Some(Value::Number(number)) => Some(number),
            _ => self.scope.get(word.as_str()).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_computed_as_rust_does() {
        let scope = HashMap::from([("HEADER", 8)]);
        for (expression, value) in [
            ("4 + 4 * 2", Some(12)),
            ("(1 << 20) - 1", Some(1_048_575)),
            ("1 << 2 + 1", Some(8)),
            ("HEADER + size_of::<u32>()", Some(12)),
            ("0x10_u64", Some(16)),
            ("u32::MAX as u64", Some(4_294_967_295)),
            ("UNKNOWN", None),
            ("f(1)", None),
            ("1 +", None),
        ] {
            assert_eq!(evaluate(expression, &scope), value, "{expression}");
        }
    }

    #[test]
    fn a_document_that_gives_another_value_is_found() {
        let source =
            "pub const MAGIC: [u8; 4] = *b\"LSM1\";\npub const A: usize = 2;\nconst B_BYTES: usize =\n    A * 4;\n";
        let check_text = |text: &str| {
            let tree = Tree::of(&[("docs/format.md", text), ("crates/log/src/lib.rs", source)]);
            let workspace = Workspace { packages: vec![], target_dir: "t".into() };
            check(&tree, &workspace).into_iter().map(|finding| finding.message).collect::<Vec<_>>()
        };
        assert_eq!(check_text("`B_BYTES = 8`, `log::MAGIC = b\"LSM1\"`, `x = 3`"), [""; 0]);
        let wrong = check_text("`B_BYTES = 9`\n`GONE = 1`\n`MAGIC = b\"LSM2\"`");
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].starts_with("B_BYTES is 8 (0x8)") && wrong[1].starts_with("GONE is no constant"));
        assert_eq!(check_text("nothing").len(), 1);
    }
}
