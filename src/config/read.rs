//! Gathers values from defaults, file, environment and flags, and says what is wrong with each.

use super::lines::LineNumbers;
use super::origin::{Origin, Overrides};
use super::problem::Problems;
use super::schema::{self, KEYS, ROOT_KEYS, SECTIONS};
use super::suggest::nearest;
use super::value::{self, Raw, Value};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Largest configuration file, in bytes.
const LONGEST_FILE: u64 = 1 << 20;
/// Most roots.
const MOST_ROOTS: usize = 1000;

/// Values that were read, with where each came from.
pub(super) type Values = BTreeMap<&'static str, (Value, Origin)>;

/// Everything that was said, right or wrong.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub values: Values,
    pub roots: Vec<RawRoot>,
}

/// A `[[root]]` table, or a root given by variable or flag.
#[derive(Debug, Default)]
pub(super) struct RawRoot {
    pub origin: Origin,
    pub values: Values,
    pub settings: Vec<(String, String)>,
    /// Keys that were given, right or wrong.
    pub given: Vec<&'static str>,
}

/// A key with its value, not yet checked.
struct Entry {
    key: String,
    raw: Raw,
    origin: Origin,
}

/// Gathers all values; mistakes go to `problems`.
pub(super) fn gather(file: Option<&Path>, overrides: &Overrides, problems: &mut Problems) -> Gathered {
    let mut entries = Vec::new();
    let mut gathered = Gathered::default();
    for key in KEYS {
        if let Some(default) = key.default {
            entries.push(Entry {
                key: key.name.to_owned(),
                raw: Raw::Untyped(default.to_owned()),
                origin: Origin::Default,
            });
        }
    }
    let given = |wanted: fn(&Origin) -> bool| {
        overrides.given.iter().filter(move |given| wanted(&given.origin)).map(untyped)
    };
    entries.extend(given(|origin| matches!(origin, Origin::Command(_))));
    if let Some(file) = file {
        let text = read_file(file, problems);
        let lines = LineNumbers::new(&text);
        let mut document =
            Document { file, text: &text, lines, entries: Vec::new(), roots: Vec::new(), problems };
        document.read();
        let (more, roots) = (document.entries, document.roots);
        entries.extend(more);
        gathered.roots = roots;
    }
    entries.extend(given(|origin| matches!(origin, Origin::Environment(_))));
    entries.extend(given(|origin| matches!(origin, Origin::Flag(_))));
    for entry in entries {
        if entry.key == "root" {
            gathered.roots.extend(roots_in(&entry, problems));
        } else {
            place(entry, &mut gathered.values, problems);
        }
    }
    gathered
}

fn untyped(given: &super::origin::Override) -> Entry {
    Entry { key: given.key.clone(), raw: Raw::Untyped(given.value.clone()), origin: given.origin.clone() }
}

/// Reads one value and puts it in its place, over one of lesser rank.
fn place(entry: Entry, values: &mut Values, problems: &mut Problems) {
    let Some(key) = schema::find(&entry.key) else {
        // Looking for what was meant takes time, which a file of another kind would cost for every line.
        let what = if problems.is_full() { String::new() } else { unknown_key(&entry.key) };
        problems.add(&entry.origin, &entry.key, what);
        return;
    };
    match value::read(key.kind, &entry.raw) {
        Ok(value) => {
            values.insert(key.name, (value, entry.origin));
        }
        Err(what) => problems.add(&entry.origin, &entry.key, what),
    }
}

/// `NAME=URI` with commas between, as a variable or a flag gives roots.
fn roots_in(entry: &Entry, problems: &mut Problems) -> Vec<RawRoot> {
    let Raw::Untyped(text) = &entry.raw else { return Vec::new() };
    let mut roots = Vec::new();
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let Some((name, uri)) = one.split_once('=') else {
            problems.add(&entry.origin, "root", "must read NAME=URI, several with ',' between");
            continue;
        };
        let mut root = RawRoot { origin: entry.origin.clone(), ..RawRoot::default() };
        for (key, text) in [("name", name), ("uri", uri)] {
            place_in_root(key, &Raw::Untyped(text.to_owned()), &entry.origin, &mut root, problems);
        }
        roots.push(root);
    }
    roots
}

fn place_in_root(name: &str, raw: &Raw, origin: &Origin, root: &mut RawRoot, problems: &mut Problems) {
    let Some(key) = ROOT_KEYS.iter().find(|key| key.name == name) else {
        let near = nearest(name, ROOT_KEYS.iter().map(|key| key.name).chain(["settings"]));
        let near = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
        problems.add(origin, &format!("root.{name}"), format!("unknown key{near}"));
        return;
    };
    root.given.push(key.name);
    match value::read(key.kind, raw) {
        Ok(value) => {
            root.values.insert(key.name, (value, origin.clone()));
        }
        Err(what) => problems.add(origin, &format!("root.{name}"), what),
    }
}

/// What is said of a key that does not exist.
fn unknown_key(name: &str) -> String {
    let (section, key) = schema::split(name);
    let inside = KEYS.iter().map(|key| schema::split(key.name)).filter(|(of, _)| *of == section);
    if let Some(near) = nearest(key, inside.map(|(_, key)| key)) {
        return format!("unknown key; did you mean '{near}'?");
    }
    let elsewhere = KEYS.iter().map(|known| schema::split(known.name)).find(|(_, known)| *known == key);
    match elsewhere {
        Some((home, _)) => format!("unknown key; '{key}' belongs to [{home}]"),
        None => "unknown key".to_owned(),
    }
}

fn read_file(file: &Path, problems: &mut Problems) -> String {
    let shown = Origin::File { file: file.display().to_string(), line: 0 };
    let mut text = String::new();
    let read =
        std::fs::File::open(file).and_then(|open| open.take(LONGEST_FILE + 1).read_to_string(&mut text));
    match read {
        Err(error) => {
            problems.add_general(&shown, format!("cannot be read: {error}"));
            String::new()
        }
        Ok(length) if length as u64 > LONGEST_FILE => {
            problems.add_general(&shown, format!("is longer than {LONGEST_FILE} bytes"));
            String::new()
        }
        Ok(_) => text,
    }
}

/// The file while it is walked.
struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    lines: LineNumbers,
    entries: Vec<Entry>,
    roots: Vec<RawRoot>,
    problems: &'a mut Problems,
}

impl Document<'_> {
    fn read(&mut self) {
        let text = self.text;
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map_or(0, |span| self.lines.at(span.start));
            let origin = Origin::File { file: self.file.display().to_string(), line };
            self.problems.add_general(&origin, format!("not TOML: {}", error.message()));
        }
        self.section("", table.get_ref());
    }

    fn origin(&self, at: usize) -> Origin {
        Origin::File { file: self.file.display().to_string(), line: self.lines.at(at) }
    }

    /// Entries of a table in the order of their lines.
    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name = key.get_ref();
            let full = if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
            let origin = self.origin(key.span().start);
            if full == "root" {
                self.root_tables(value, &origin);
            } else if SECTIONS.iter().any(|(known, _)| *known == full) {
                match value.get_ref() {
                    DeValue::Table(table) => self.section(&full, table),
                    other => {
                        self.problems.add(&origin, &full, format!("expected a table, found {}", found(other)))
                    }
                }
            } else if section.is_empty() && self.problems.is_full() {
                self.problems.add(&origin, &full, "unknown section");
            } else if section.is_empty() {
                let near = nearest(name, SECTIONS.iter().map(|(name, _)| *name));
                let near = near.map(|near| format!("; did you mean [{near}]?")).unwrap_or_default();
                self.problems.add(&origin, &full, format!("unknown section{near}"));
            } else {
                self.entries.push(Entry { key: full, raw: raw(value.get_ref()), origin });
            }
        }
    }

    fn root_tables(&mut self, value: &Spanned<DeValue<'_>>, origin: &Origin) {
        let DeValue::Array(array) = value.get_ref() else {
            self.problems.add(origin, "root", "roots are tables of an array: write [[root]]");
            return;
        };
        if array.len() > MOST_ROOTS {
            self.problems.add(origin, "root", format!("{} roots, the most is {MOST_ROOTS}", array.len()));
            return;
        }
        for one in array.iter() {
            let origin = self.origin(one.span().start);
            let DeValue::Table(table) = one.get_ref() else {
                self.problems.add(
                    &origin,
                    "root",
                    format!("expected a table, found {}", found(one.get_ref())),
                );
                continue;
            };
            let root = self.root_table(table, origin);
            self.roots.push(root);
        }
    }

    fn root_table(&mut self, table: &DeTable<'_>, origin: Origin) -> RawRoot {
        let mut root = RawRoot { origin, ..RawRoot::default() };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let origin = self.origin(key.span().start);
            if key.get_ref() == "settings" {
                self.settings(value, &origin, &mut root);
            } else {
                place_in_root(key.get_ref(), &raw(value.get_ref()), &origin, &mut root, self.problems);
            }
        }
        root
    }

    fn settings(&mut self, value: &Spanned<DeValue<'_>>, origin: &Origin, root: &mut RawRoot) {
        let DeValue::Table(table) = value.get_ref() else {
            let what = format!("expected a table, found {}", found(value.get_ref()));
            self.problems.add(origin, "root.settings", what);
            return;
        };
        for (key, value) in table {
            let text = match raw(value.get_ref()) {
                Raw::Text(text) => Some(text),
                Raw::Whole(Some(number)) => Some(number.to_string()),
                Raw::Bool(value) => Some(value.to_string()),
                _ => None,
            };
            match text {
                Some(text) => root.settings.push((key.get_ref().to_string(), text)),
                None => {
                    let (at, name) =
                        (self.origin(key.span().start), format!("root.settings.{}", key.get_ref()));
                    let what = format!(
                        "expected a string, a whole number, true or false; found {}",
                        found(value.get_ref())
                    );
                    self.problems.add(&at, &name, what);
                }
            }
        }
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => Raw::Whole(i128::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Boolean(value) => Raw::Bool(*value),
        other => Raw::Other(found(other)),
    }
}

/// A TOML type in words.
fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
