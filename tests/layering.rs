//! The order of modules, who may import a runtime, and the length of files: read from src/.

use std::path::{Path, PathBuf};

/// Modules in the order of src/lib.rs: each imports those above it.
fn order() -> Vec<String> {
    let text = std::fs::read_to_string(src().join("lib.rs")).unwrap();
    let declared = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    declared.map(str::to_owned).collect()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

struct File {
    /// Relative to src/.
    path: String,
    module: String,
    text: String,
}

impl File {
    /// Lines that are code, with their numbers from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        lines.filter(|(_, line)| !line.starts_with("//"))
    }

    /// Whether the whole file is compiled for tests alone.
    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs") || self.path.ends_with("testing.rs")
    }
}

/// Every file below src/ but lib.rs and main.rs.
fn files() -> Vec<File> {
    let mut found = Vec::new();
    collect(&src(), &mut found);
    let mut files: Vec<File> = found
        .into_iter()
        .map(|file| {
            let path = file.strip_prefix(src()).unwrap().to_str().unwrap().replace('\\', "/");
            let first = path.split('/').next().unwrap();
            let module = first.strip_suffix(".rs").unwrap_or(first).to_owned();
            File { path, module, text: std::fs::read_to_string(file).unwrap() }
        })
        .filter(|file| !matches!(file.path.as_str(), "lib.rs" | "main.rs"))
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 50, "src/ was found");
    files
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Names that follow `crate::` in a line: `crate::a::B` gives `a`, `crate::{A, b::C}` gives `A` and `b`.
fn imports(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let word = |text: &str| {
            let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
            text[..end].to_owned()
        };
        match rest.strip_prefix('{') {
            None => names.push(word(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut start = 0;
                for (i, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => {
                            names.push(word(group[start..i].trim()));
                            break;
                        }
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            names.push(word(group[start..i].trim()));
                            start = i + 1;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// A `use crate::{…}` over several lines, as one.
fn joined(file: &File) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in file.code() {
        match lines.last_mut().filter(|_| open) {
            Some((_, last)) => last.push_str(line),
            None => lines.push((number, line.to_owned())),
        }
        open = lines.last().is_some_and(|(_, last)| last.contains("crate::{") && !last.ends_with(';'));
    }
    lines
}

#[test]
fn imports_point_up_the_list_only() {
    let order = order();
    assert_eq!((order[0].as_str(), order.last().unwrap().as_str()), ("error", "cli"));
    let place = |module: &str| order.iter().position(|other| other == module);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in files() {
        let own = place(&file.module).unwrap_or_else(|| panic!("{} is not declared in lib.rs", file.path));
        for (number, line) in joined(&file) {
            // Error, ErrorKind and Result are re-exported by the crate.
            let names = imports(&line).into_iter().filter(|name| name.starts_with(char::is_lowercase));
            for name in names {
                seen += 1;
                if place(&name).is_none_or(|other| other > own) {
                    wrong.push(format!("{}:{number}: {} imports {name}", file.path, file.module));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 60, "only {seen} imports were found");
}

#[test]
fn what_reads_imports_reads_them() {
    for (line, expected) in [
        ("use crate::a::B;", &["a"][..]),
        ("use crate::{Error, Result, a, b::{C, d}, e::f};", &["Error", "Result", "a", "b", "e"]),
        ("pub(in crate::x) fn y(z: crate::w::Q)", &["x", "w"]),
        ("let crate_name = 1;", &[]),
    ] {
        assert_eq!(imports(line), expected, "{line}");
    }
}

#[test]
fn the_pure_part_knows_no_runtime_and_stores_are_built_in_source_alone() {
    let order = order();
    let pure = order.iter().position(|m| m == "format").unwrap()
        ..=order.iter().position(|m| m == "analysis").unwrap();
    let pure: Vec<&str> = order[pure].iter().map(String::as_str).collect();
    assert!(pure.contains(&"spectrum") && !pure.contains(&"source"));
    let mut wrong = Vec::new();
    for file in files() {
        for (number, line) in file.code() {
            let names = |what: &str| {
                let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
                words.any(|word| word == what)
            };
            if pure.contains(&file.module.as_str()) && ["tokio", "async", "await"].into_iter().any(names) {
                wrong.push(format!("{}:{number}: a runtime in the pure part: {line}", file.path));
            }
            for (library, home) in [("object_store", "source"), ("sled", "store"), ("include_proto", "rpc")] {
                if file.module != home && names(library) {
                    wrong.push(format!("{}:{number}: {library} outside {home}: {line}", file.path));
                }
            }
            // The lease table has no clock of its own: every time-out has a unit test.
            if file.module == "job" && ["Instant", "SystemTime", "tokio", "async"].into_iter().any(names) {
                wrong
                    .push(format!("{}:{number}: a clock or a runtime in the lease table: {line}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_test_is_ignored() {
    let mut found = Vec::new();
    collect(&src(), &mut found);
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut found);
    let ignored = concat!("#[", "ignore");
    for path in found {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(ignored), "{} ignores a test", path.display());
    }
}

#[test]
fn files_are_short() {
    const MOST: usize = 400;
    let long: Vec<String> = files()
        .iter()
        .filter(|file| !file.is_test())
        .map(|file| (file, file.text.lines().take_while(|line| *line != "#[cfg(test)]").count()))
        .filter(|(_, lines)| *lines > MOST)
        .map(|(file, lines)| format!("{}: {lines} lines before the tests", file.path))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
