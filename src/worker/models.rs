//! Models that are open: their headers are read once, not once a lease.

use super::access::{Access, Metered, Use, Watching};
use super::board::Task;
use super::link::{Link, Passport};
use super::through::{Through, version};
use super::{WorkerOptions, WorkerRoot};
use crate::analysis::Options;
use crate::format::{self, Catalog};
use crate::layer::{self, Layer, LayerOptions, Layers};
use crate::rpc::convert;
use crate::rpc::proto::v1;
use crate::rpc::proto::worker::v1::{Lease, ModelAt, Unit};
use crate::source::{self, ModelSource, ReadAt, SourceOptions};
use crate::{Error, ErrorKind, Result};
use prost::Message as _;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Models that are kept open; more are if more are in use.
const KEPT: usize = 8;
/// How long one is kept that nobody uses.
const UNUSED: Duration = Duration::from_secs(600);

/// Opens models and keeps a few of them.
pub(super) struct Models {
    link: Link,
    roots: Vec<WorkerRoot>,
    embedded: bool,
    bytes_read: Arc<AtomicU64>,
    entries: Mutex<Vec<Entry>>,
}

#[derive(PartialEq, Eq)]
struct Key {
    /// The encoded `ModelAt`: place and versions.
    model: Vec<u8>,
    layers: LayerOptions,
    patterns: Vec<String>,
}

struct Entry {
    key: Key,
    slot: Arc<Slot>,
    used: Instant,
}

#[derive(Default)]
struct Slot {
    access: Arc<Access>,
    /// Locked while the model is opened: whoever else wants it waits rather than reading its headers as well.
    opened: Mutex<Option<Arc<Opened>>>,
}

/// A model that was opened and is what the plan was made from.
pub(super) struct Opened {
    /// Its tensors; reads are counted.
    pub(super) catalog: Catalog,
    layers: Layers,
}

/// A model in use by one lease.
pub(super) struct InUse {
    opened: Arc<Opened>,
    /// What to compute.
    pub(super) options: Options,
    used: Use,
}

impl Models {
    /// `bytes_read` counts what is read of all models.
    pub(super) fn new(options: &WorkerOptions, link: Link, bytes_read: Arc<AtomicU64>) -> Self {
        let (roots, embedded) = (options.roots.clone(), options.embedded);
        Self { link, roots, embedded, bytes_read, entries: Mutex::default() }
    }

    /// The lease's model: open already, or opened now.
    ///
    /// # Errors
    /// What the source or the format gives; `Changed` if the objects are not those of the plan.
    pub(super) fn open(&self, task: &Task) -> Result<InUse> {
        let (at, options, key) = asked(&task.lease)?;
        let slot = self.slot(key);
        let Lease { attempt, analysis, .. } = task.lease.as_ref();
        let passport = Passport { attempt: *attempt, analysis: analysis.clone() };
        let used = Use::new(&slot.access, passport, &task.cancel);
        let mut opened = lock(&slot.opened);
        let model = match opened.as_ref() {
            Some(model) => Arc::clone(model),
            None => {
                let patterns = task.lease.options.as_ref().map_or(&[][..], |options| &options.layers);
                let read = || self.read(at, &slot.access, &options, patterns);
                Arc::clone(opened.insert(Arc::new(read().map_err(|error| error.in_model(&at.uri))?)))
            }
        };
        drop(opened);
        Ok(InUse { opened: model, options, used })
    }

    /// Opens the lease's model anew next time.
    pub(super) fn forget(&self, lease: &Lease) {
        if let Ok((_, _, key)) = asked(lease) {
            lock(&self.entries).retain(|entry| entry.key != key);
        }
    }

    /// Closes what has not been used for long.
    pub(super) fn tidy(&self) {
        let closed: Vec<Entry> = {
            let mut entries = lock(&self.entries);
            entries.extract_if(.., |entry| !entry.is_used() && entry.used.elapsed() > UNUSED).collect()
        };
        // Outside the lock: closing may take a while.
        drop(closed);
    }

    fn slot(&self, key: Key) -> Arc<Slot> {
        let mut entries = lock(&self.entries);
        let entry = match entries.iter().position(|entry| entry.key == key) {
            Some(at) => entries.remove(at),
            None => Entry { key, slot: Arc::default(), used: Instant::now() },
        };
        let slot = Arc::clone(&entry.slot);
        entries.push(Entry { used: Instant::now(), ..entry });
        // The least recently used come first.
        let surplus = entries.len().saturating_sub(KEPT);
        let mut left = surplus;
        entries.retain(|entry| {
            let drops = left > 0 && !entry.is_used();
            left -= usize::from(drops);
            !drops
        });
        slot
    }

    fn read(
        &self,
        at: &ModelAt,
        access: &Arc<Access>,
        options: &Options,
        patterns: &[String],
    ) -> Result<Opened> {
        let source = self.source(at, access)?;
        let mut catalog = format::read_catalog(source.as_ref())?;
        check_files(&at.files, &catalog, source.as_ref())?;
        let mut layers = layer::layers(&catalog, &options.layers);
        layer::filter(&mut layers, patterns, "options.layers")?;
        for (file, slot) in catalog.files.iter_mut().enumerate() {
            let (inner, access, total) = (Arc::clone(slot), Arc::clone(access), Arc::clone(&self.bytes_read));
            *slot = Arc::new(Metered { inner, file, access, total });
        }
        Ok(Opened { catalog, layers })
    }

    /// Reads directly what this worker has means to read, and the rest through the coordinator.
    fn source(&self, at: &ModelAt, access: &Arc<Access>) -> Result<Arc<dyn ModelSource>> {
        let is_here = self.embedded && is_path(&at.uri);
        let own = self.roots.iter().find(|root| root.name == at.root && !at.root.is_empty());
        match own {
            Some(root) if !at.through_coordinator || is_here => source::open(&at.uri, &root.source),
            None if is_here && at.root.is_empty() => source::open(&at.uri, &SourceOptions::default()),
            _ => Ok(Arc::new(Through::open(&self.link, access, &at.uri)?)),
        }
    }
}

impl Entry {
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.slot) > 1 || !self.slot.access.passports().is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn asked(lease: &Lease) -> Result<(&ModelAt, Options, Key)> {
    let at = lease.model.as_ref().ok_or_else(|| Error::invalid("is missing").in_field("model"))?;
    let (options, patterns) = convert::options_from_proto(lease.options.as_ref())?;
    let key = Key { model: at.encode_to_vec(), layers: options.layers.clone(), patterns };
    Ok((at, options, key))
}

/// Whether the URI is of this machine's file system.
fn is_path(uri: &str) -> bool {
    uri.starts_with("file://") || !uri.contains("://")
}

/// Every object of the plan must be what it was, and no other may have joined.
fn check_files(planned: &[v1::ObjectIdentity], catalog: &Catalog, source: &dyn ModelSource) -> Result<()> {
    if planned.is_empty() {
        return Ok(());
    }
    for file in planned {
        let held = catalog.files.iter().find(|held| held.identity().uri == file.uri);
        // One that holds no tensor, such as an index, is not in the catalog.
        let held = match held {
            Some(held) => Arc::clone(held),
            None => source.open(name_of(&file.uri)).map_err(|error| match error.kind() {
                ErrorKind::NotFound => {
                    let message = format!("the plan was made from {}; it is gone", file.uri);
                    Error::new(ErrorKind::NotFound, message)
                }
                _ => error,
            })?,
        };
        check_file(file, held.as_ref())?;
    }
    let unknown = catalog.files.iter().find(|held| planned.iter().all(|p| p.uri != held.identity().uri));
    if let Some(unknown) = unknown {
        let message = "it was not there when the plan was made";
        return Err(Error::new(ErrorKind::Changed, message).in_file(unknown.name()));
    }
    Ok(())
}

fn check_file(planned: &v1::ObjectIdentity, held: &dyn ReadAt) -> Result<()> {
    let then = source::ObjectIdentity::from(planned.clone());
    let now = held.identity();
    // Without a version in the plan, the size is all there is to compare.
    let same_pin = then.pin.is_none() || then.pin == now.pin;
    if then.size == now.size && same_pin {
        return Ok(());
    }
    let message = format!("the plan was made from {}, which is {} now", version(&then), version(now));
    Err(Error::new(ErrorKind::Changed, message).in_file(held.name()))
}

fn name_of(uri: &str) -> &str {
    uri.rsplit('/').next().unwrap_or(uri)
}

impl InUse {
    /// Every tensor.
    pub(super) fn catalog(&self) -> &Catalog {
        &self.opened.catalog
    }

    /// The unit's layer.
    ///
    /// # Errors
    /// `Changed` if it has another name than in the plan.
    pub(super) fn layer(&self, unit: &Unit) -> Result<&Layer> {
        let layers = &self.opened.layers.layers;
        let found = layers.get(unit.layer as usize);
        match found {
            Some(layer) if layer.name == unit.name => Ok(layer),
            found => {
                let here = found.map_or("no layer".to_owned(), |layer| format!("'{}'", layer.name));
                let message = format!("layer {} is '{}' in the plan and {here} here", unit.layer, unit.name);
                Err(Error::new(ErrorKind::Changed, message))
            }
        }
    }

    /// Counts what is read of the layer's tensor as progress.
    pub(super) fn watch(&self, layer: &Layer, progress: &Arc<AtomicU64>) -> Watching {
        let tensor = self.opened.catalog.tensors.get(layer.tensor);
        let (file, range): (usize, Range<u64>) = tensor.map_or((0, 0..0), |t| (t.file, t.range.clone()));
        self.used.watch(file, range, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_places_in_a_store() {
        for (uri, expected) in
            [("a/b", true), ("/a/b", true), ("file:///a", true), ("s3://a/b", false), ("upload://7", false)]
        {
            assert_eq!(is_path(uri), expected, "{uri}");
        }
    }
}
