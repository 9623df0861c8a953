//! From a file, or a directory in Hugging Face's layout, to a [`Catalog`].

use super::config::{CONFIG_NAME, read_config};
use super::index::{INDEX_EXTENSION, INDEX_NAME, Index, read_index};
use super::kinds::{FOREIGN_EXTENSIONS, Format, READERS, read_file, readable};
use super::limits::Budget;
use super::{Catalog, Contents, Limits, Tensor};
use crate::source::{ModelSource, ReadAt};
use crate::{Error, ErrorKind, Result};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Files whose headers are read at the same time: the time goes into waiting for the store.
const AT_ONCE: usize = 8;

/// Reads the headers of a model, and its `config.json`, with the default [`Limits`].
///
/// - A single file is recognised by its content, whatever its name; a `*.safetensors.index.json` named by itself
///   stands for the model that it lists.
/// - In a directory, `model.safetensors.index.json` decides which files are the model (or the only
///   `*.safetensors.index.json` there is), also where a `model.safetensors` lies beside it; weight files that the index
///   does not list are named in [`Catalog::notes`]. Without an index, all `*.safetensors` at the top make one model.
/// - Every tensor of every file read is in the catalog, listed in the index or not.
///
/// # Errors
/// `Unsupported` for a file or directory of another format; `NotFound` for a missing file or shard and a directory
/// without a model; `Malformed` where bytes break their format, a name is in two files, or index and shards disagree;
/// `TooLarge` past a limit; the source's own failures. Each names the file and, where one is to blame, tensor and field.
pub fn read_catalog(source: &dyn ModelSource) -> Result<Catalog> {
    read_catalog_within(source, &Limits::default())
}

/// [`read_catalog`] with other limits.
///
/// # Errors
/// As [`read_catalog`].
pub fn read_catalog_within(source: &dyn ModelSource, limits: &Limits) -> Result<Catalog> {
    let mut notes = Vec::new();
    let choice = choose(source, limits)?;
    notes.extend(choice.unlisted(source));
    let read = read_files(source, &choice, &Budget::new(*limits))?;
    let format = read.first().map_or("", |read| read.format.name);
    let Merged { files, tensors, metadata } = merge(read, limits)?;
    check_names(&files, &tensors, choice.index.as_ref())?;
    let config = find_config(source, limits, &mut notes)?;
    Ok(Catalog { uri: source.uri().to_owned(), format, files, tensors, metadata, config, notes })
}

/// The files that make the model.
struct Choice {
    /// Names, sorted.
    files: Vec<String>,
    /// The index that chose them, with its name.
    index: Option<(String, Index)>,
}

impl Choice {
    /// A note on weight files that the index leaves out.
    fn unlisted(&self, source: &dyn ModelSource) -> Option<String> {
        let (index, _) = self.index.as_ref().filter(|_| !source.is_single_file())?;
        let unlisted: Vec<&str> =
            weight_files(source.names()).filter(|name| !self.files.iter().any(|file| file == name)).collect();
        (!unlisted.is_empty())
            .then(|| format!("not read, because {index} does not list it: {}", some(&unlisted)))
    }
}

/// Which files make the model.
fn choose(source: &dyn ModelSource, limits: &Limits) -> Result<Choice> {
    let names = source.names();
    let index = match (source.is_single_file(), names) {
        (true, [name]) if name.ends_with(INDEX_EXTENSION) => Some(name.as_str()),
        (true, _) => None,
        (false, _) => find_index(source)?,
    };
    if let Some(name) = index {
        let index = read_index(source.open(name)?.as_ref(), limits)?;
        if index.shards.is_empty() {
            return Err(Error::malformed("lists no tensor").in_field("weight_map").in_file(name));
        }
        return Ok(Choice { files: index.shards.clone(), index: Some((name.to_owned(), index)) });
    }
    let mut files: Vec<String> = match source.is_single_file() {
        true => names.to_vec(),
        false => weight_files(names).map(str::to_owned).collect(),
    };
    files.sort_unstable();
    if files.is_empty() {
        return Err(no_model(source));
    }
    Limits::check("files in one model", files.len() as u64, limits.shards as u64)?;
    Ok(Choice { files, index: None })
}

/// The index of a directory, if it has one.
fn find_index(source: &dyn ModelSource) -> Result<Option<&str>> {
    let mut indexes: Vec<&str> = top(source.names()).filter(|name| name.ends_with(INDEX_EXTENSION)).collect();
    indexes.sort_unstable();
    match indexes.as_slice() {
        _ if indexes.contains(&INDEX_NAME) => Ok(Some(INDEX_NAME)),
        [] => Ok(None),
        [index] => Ok(Some(index)),
        several => {
            let message = format!("several indexes ({}); name one of them", some(several));
            Err(Error::invalid(message).in_file(source.uri()))
        }
    }
}

/// Names that lie in the directory itself.
fn top(names: &[String]) -> impl Iterator<Item = &str> {
    names.iter().map(String::as_str).filter(|name| !name.contains('/'))
}

/// Files in the directory itself whose names say that they are of a format that is read.
fn weight_files(names: &[String]) -> impl Iterator<Item = &str> {
    top(names).filter(|name| has_extension(name))
}

fn has_extension(name: &str) -> bool {
    READERS.iter().any(|format| name.ends_with(format.extension))
}

const NO_FILES: &str = "the directory has no files; folders in it are not searched";
const NO_LISTING: &str = "plain HTTP has no listing; name the file or the .index.json";

/// What to say of a directory without a model.
fn no_model(source: &dyn ModelSource) -> Error {
    let names = source.names();
    let below: Vec<&str> = names.iter().map(String::as_str).filter(|name| has_extension(name)).collect();
    let foreign: Vec<&str> =
        top(names).filter(|name| FOREIGN_EXTENSIONS.iter().any(|end| name.ends_with(end))).collect();
    let (kind, message) = if names.is_empty() {
        let listed = !source.uri().starts_with("http");
        let message = if listed { NO_FILES } else { NO_LISTING };
        (ErrorKind::NotFound, message.to_owned())
    } else if !below.is_empty() {
        let message = format!("no model file at the top, only below ({}); name one folder", some(&below));
        (ErrorKind::NotFound, message)
    } else if !foreign.is_empty() {
        let message =
            format!("no {} file, only {}, which this version does not read", readable(), some(&foreign));
        (ErrorKind::Unsupported, message)
    } else {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let message =
            format!("no model file in the directory, which has {} ({})", files(names.len()), some(&names));
        (ErrorKind::NotFound, message)
    };
    Error::new(kind, message).in_file(source.uri())
}

fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// The first few of many names.
fn some(names: &[&str]) -> String {
    const MOST: usize = 3;
    let shown = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A file whose header has been read.
struct ReadFile {
    file: Arc<dyn ReadAt>,
    format: &'static Format,
    contents: Contents,
}

/// Opens the chosen files and reads their headers, several at a time; the result is in the order of the files, and an
/// error is that of the first file that has one.
fn read_files(source: &dyn ModelSource, choice: &Choice, budget: &Budget) -> Result<Vec<ReadFile>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = choice.files.get(place) else { return done };
            let read = read_one(source, name, choice, budget);
            if read.is_err() {
                // Files after this one need not be read; those before it are being read already.
                next.store(choice.files.len(), Ordering::Relaxed);
            }
            done.push((place, read));
        }
    };
    let mut all = thread::scope(|scope| {
        let others = choice.files.len().clamp(1, AT_ONCE) - 1;
        // A thread that cannot be started only leaves more work to the others.
        let handles: Vec<_> =
            (0..others).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let mut all = work();
        for handle in handles {
            all.extend(handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    all.sort_unstable_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, read)| read).collect()
}

fn read_one(source: &dyn ModelSource, name: &str, choice: &Choice, budget: &Budget) -> Result<ReadFile> {
    let file = source.open(name).map_err(|error| match &choice.index {
        Some((index, _)) if error.kind() == ErrorKind::NotFound => {
            let message = format!("shard '{name}' does not exist");
            Error::new(ErrorKind::NotFound, message).in_field("weight_map").in_file(index)
        }
        _ => error.in_file(name),
    })?;
    let (format, contents) = read_file(file.as_ref(), budget)?;
    Ok(ReadFile { file, format, contents })
}

/// The contents of all files as one.
struct Merged {
    files: Vec<Arc<dyn ReadAt>>,
    tensors: Vec<Tensor>,
    metadata: BTreeMap<String, String>,
}

fn merge(read: Vec<ReadFile>, limits: &Limits) -> Result<Merged> {
    let total: usize = read.iter().map(|file| file.contents.tensors.len()).sum();
    Limits::check("tensors", total as u64, limits.tensors)?;
    let mut merged = Merged {
        files: Vec::with_capacity(read.len()),
        tensors: Vec::with_capacity(total),
        metadata: BTreeMap::new(),
    };
    for ReadFile { file, contents, .. } in read {
        let place = merged.files.len();
        merged.files.push(file);
        merged.tensors.extend(contents.tensors.into_iter().map(|tensor| Tensor { file: place, ..tensor }));
        for (key, value) in contents.metadata {
            merged.metadata.entry(key).or_insert(value);
        }
    }
    Ok(merged)
}

/// A name must be in one file only, and in the file that the index says.
fn check_names(files: &[Arc<dyn ReadAt>], tensors: &[Tensor], index: Option<&(String, Index)>) -> Result<()> {
    let file_name = |place: usize| files.get(place).map_or("", |file| file.name());
    let mut place_of: HashMap<&str, usize> = HashMap::with_capacity(tensors.len());
    for tensor in tensors {
        if let Some(other) = place_of.insert(&tensor.name, tensor.file) {
            let message = format!("is in both '{}' and '{}'", file_name(other), file_name(tensor.file));
            return Err(Error::malformed(message).in_tensor(&tensor.name));
        }
    }
    let Some((index_name, index)) = index else { return Ok(()) };
    for (name, shard) in &index.tensors {
        // The files were read in the order of the index's shards.
        let listed = file_name(*shard);
        let message = match place_of.get(name.as_str()) {
            Some(place) if place == shard => continue,
            Some(place) => format!("listed in shard '{listed}', but it is in '{}'", file_name(*place)),
            None => format!("listed in shard '{listed}', which does not have it"),
        };
        return Err(Error::malformed(message).in_tensor(name).in_file(index_name));
    }
    Ok(())
}

/// The model's config.json, if there is one.
fn find_config(source: &dyn ModelSource, limits: &Limits, notes: &mut Vec<String>) -> Result<Option<Value>> {
    let listed = source.names().iter().any(|name| name == CONFIG_NAME);
    if !listed && !source.is_single_file() {
        return Ok(None);
    }
    match source.open(CONFIG_NAME) {
        Ok(file) => read_config(file.as_ref(), limits).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        // S3 answers "access denied" for an absent key to those who may not list the bucket.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !listed => {
            notes.push(format!("{CONFIG_NAME} not read: {}", error.message()));
            Ok(None)
        }
        Err(error) => Err(error.in_file(CONFIG_NAME)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Entry, MemoryFile, MemorySource, safetensors};
    use super::*;

    /// A file whose tensors are one byte each.
    fn file(name: &str, tensors: &[&str]) -> MemoryFile {
        let entry = |&name| Entry { name, dtype: "U8", shape: &[1], data: &[7] };
        MemoryFile::new(name, safetensors(&tensors.iter().map(entry).collect::<Vec<_>>(), &[("from", name)]))
    }

    fn index(name: &str, map: &[(&str, &str)]) -> MemoryFile {
        let map: BTreeMap<_, _> = map.iter().copied().collect();
        MemoryFile::new(name, serde_json::json!({ "weight_map": map }).to_string())
    }

    fn text(name: &str, text: &str) -> MemoryFile {
        MemoryFile::new(name, text.to_owned())
    }

    fn names(catalog: &Catalog) -> Vec<(&str, &str)> {
        let file_name = |tensor: &Tensor| catalog.files[tensor.file].name();
        catalog.tensors.iter().map(|tensor| (file_name(tensor), tensor.name.as_str())).collect()
    }

    fn failure(source: &MemorySource) -> (ErrorKind, String) {
        let error = read_catalog(source).err().unwrap();
        (error.kind(), error.to_string())
    }

    #[test]
    fn a_single_file_under_any_name_with_the_config_beside_it() {
        let files = [file("weights", &["b", "a"]), text("config.json", r#"{"model_type": "bert"}"#)];
        let catalog = read_catalog(&MemorySource::single("weights", files)).unwrap();
        assert_eq!(names(&catalog), [("weights", "b"), ("weights", "a")]);
        assert_eq!(catalog.format, "safetensors");
        assert_eq!(catalog.uri, "mem:model/weights");
        assert_eq!(catalog.config.unwrap()["model_type"], "bert");
        assert_eq!(catalog.metadata["from"], "weights");
        assert!(catalog.notes.is_empty());
    }

    #[test]
    fn without_config_there_is_none_and_a_broken_one_is_named() {
        assert!(read_catalog(&MemorySource::single("w", [file("w", &["a"])])).unwrap().config.is_none());
        assert!(
            read_catalog(&MemorySource::directory([file("w.safetensors", &[])])).unwrap().config.is_none()
        );
        let files = [file("w.safetensors", &["a"]), text("config.json", "{")];
        let (kind, message) = failure(&MemorySource::directory(files));
        assert_eq!(kind, ErrorKind::Malformed);
        assert_eq!(message, "config.json: not valid JSON: EOF while parsing an object at line 1 column 1");
    }

    #[test]
    fn a_config_that_may_be_absent_is_not_worth_a_refusal() {
        let mut source = MemorySource::single("w", [file("w", &["a"])]);
        source.denied.push("config.json".to_owned());
        let catalog = read_catalog(&source).unwrap();
        assert_eq!(catalog.notes, ["config.json not read: access denied"]);

        let files = [file("w.safetensors", &["a"]), text("config.json", "{}")];
        let mut source = MemorySource::directory(files);
        source.denied.push("config.json".to_owned());
        assert_eq!(failure(&source), (ErrorKind::PermissionDenied, "config.json: access denied".to_owned()));
    }

    #[test]
    fn files_without_an_index_are_one_model_in_sorted_order() {
        let files = [
            file("b.safetensors", &["z", "y"]),
            file("a.safetensors", &["x"]),
            file("c/d.safetensors", &["no"]),
        ];
        let catalog = read_catalog(&MemorySource::directory(files)).unwrap();
        assert_eq!(names(&catalog), [("a.safetensors", "x"), ("b.safetensors", "z"), ("b.safetensors", "y")]);
        assert_eq!(catalog.metadata["from"], "a.safetensors");
    }

    #[test]
    fn a_name_in_two_files_is_refused() {
        let files = [file("b.safetensors", &["x"]), file("a.safetensors", &["x"])];
        let (kind, message) = failure(&MemorySource::directory(files));
        assert_eq!(kind, ErrorKind::Malformed);
        assert_eq!(message, "tensor 'x': is in both 'a.safetensors' and 'b.safetensors'");
    }

    #[test]
    fn an_index_decides_and_what_it_leaves_out_is_noted() {
        let shards = [("y", "2.safetensors"), ("x", "1.safetensors")];
        let files = || {
            [
                index("model.safetensors.index.json", &shards),
                file("model.safetensors", &["x", "y"]),
                file("2.safetensors", &["y", "unlisted"]),
                file("1.safetensors", &["x"]),
            ]
        };
        let expected = [("1.safetensors", "x"), ("2.safetensors", "y"), ("2.safetensors", "unlisted")];
        let catalog = read_catalog(&MemorySource::directory(files())).unwrap();
        assert_eq!(names(&catalog), expected);
        let note = "not read, because model.safetensors.index.json does not list it: model.safetensors";
        assert_eq!(catalog.notes, [note]);

        let single = MemorySource::single("model.safetensors.index.json", files());
        assert_eq!(names(&read_catalog(&single).unwrap()), expected);
    }

    #[test]
    fn one_other_index_is_used_and_several_are_not_guessed_from() {
        let fp16 = || index("m.fp16.safetensors.index.json", &[("x", "1.safetensors")]);
        let source = MemorySource::directory([fp16(), file("1.safetensors", &["x"])]);
        assert_eq!(names(&read_catalog(&source).unwrap()), [("1.safetensors", "x")]);

        let source = MemorySource::directory([fp16(), index("m.fp32.safetensors.index.json", &[])]);
        let (kind, message) = failure(&source);
        assert_eq!(kind, ErrorKind::InvalidArgument);
        assert_eq!(
            message,
            "mem:model: several indexes (m.fp16.safetensors.index.json, m.fp32.safetensors.index.json); \
             name one of them"
        );
    }

    #[test]
    fn an_index_without_tensors_is_refused() {
        let source = MemorySource::directory([index("model.safetensors.index.json", &[])]);
        let message = "model.safetensors.index.json: field 'weight_map': lists no tensor";
        assert_eq!(failure(&source), (ErrorKind::Malformed, message.to_owned()));
    }

    #[test]
    fn directories_without_a_model_say_what_they_have() {
        let directory = |names: &[&str]| MemorySource::directory(names.iter().map(|name| text(name, "x")));
        let cases: [(&[&str], ErrorKind, &str); 5] = [
            (&[], ErrorKind::NotFound, NO_FILES),
            (
                &["README.md", "a", "b", "c"],
                ErrorKind::NotFound,
                "no model file in the directory, which has 4 files (README.md, a, b and 1 more)",
            ),
            (&["a"], ErrorKind::NotFound, "no model file in the directory, which has 1 file (a)"),
            (
                &["config.json", "pytorch_model.bin"],
                ErrorKind::Unsupported,
                "no safetensors file, only pytorch_model.bin, which this version does not read",
            ),
            (
                &["unet/m.safetensors", "vae/m.safetensors"],
                ErrorKind::NotFound,
                "no model file at the top, only below (unet/m.safetensors, vae/m.safetensors); name one folder",
            ),
        ];
        for (names, kind, message) in cases {
            assert_eq!(failure(&directory(names)), (kind, format!("mem:model: {message}")));
        }
    }

    #[test]
    fn the_first_bad_file_in_order_is_the_one_reported() {
        for _ in 0..20 {
            let shards = (10..40).map(|i| match i {
                15 | 16 | 30 => text(&format!("{i}.safetensors"), ""),
                _ => file(&format!("{i}.safetensors"), &[format!("t{i}").as_str()]),
            });
            let (_, message) = failure(&MemorySource::directory(shards));
            assert_eq!(message, "15.safetensors: the file is empty");
        }
    }

    #[test]
    fn limits_hold_for_the_whole_model() {
        let files = || [file("a.safetensors", &["x"]), file("b.safetensors", &["y", "z"])];
        let within = |limits: Limits| {
            let error = read_catalog_within(&MemorySource::directory(files()), &limits).err().unwrap();
            (error.kind(), error.message().to_owned())
        };
        let message = "more than 2 tensors, the limit in force".to_owned();
        assert_eq!(within(Limits { tensors: 2, ..Limits::default() }), (ErrorKind::TooLarge, message));
        let message = "more than 100 bytes of headers in one model, the limit in force".to_owned();
        assert_eq!(
            within(Limits { model_header_bytes: 100, ..Limits::default() }),
            (ErrorKind::TooLarge, message)
        );
        let message = "more than 1 files in one model, the limit in force".to_owned();
        assert_eq!(within(Limits { shards: 1, ..Limits::default() }), (ErrorKind::TooLarge, message));
    }

    #[test]
    fn only_headers_are_read() {
        let data = vec![0_u8; 100_000];
        let entry = Entry { name: "a", dtype: "U8", shape: &[100_000], data: &data };
        let bytes = safetensors(&[entry], &[]);
        let header_end = (bytes.len() - data.len()) as u64;
        let source = MemorySource::single("m", [MemoryFile::new("m", bytes)]);
        let catalog = read_catalog(&source).unwrap();
        assert_eq!(catalog.tensors[0].range, header_end..header_end + 100_000);
        assert_eq!(*source.file("m").reads.lock().unwrap(), [0..16, 8..header_end]);
    }
}
