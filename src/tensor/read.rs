//! One layer's matrices, read from its file in chunks and streamed as blocks.

use super::content::Content;
use super::shards::{shard_rows, shards};
use super::view::{MatrixView, Scales};
use super::window::{Shape, Window, layout_of};
use super::{Block, Blocks, block_rows};
use crate::format::Tensor;
use crate::source::ReadAt;
use crate::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

/// Bytes that are read at once from a layer that is streamed; two such chunks exist at a time.
pub const CHUNK_BYTES: u64 = 8 << 20;

/// What reading a layer needs to know beside the tensor.
#[derive(Clone)]
pub struct ReadOptions {
    /// Factor on every element (WeightWatcher's conv2d_norm).
    pub factor: f64,
    /// Whether elements are rounded to f32 before anything else, as WeightWatcher does.
    pub as_f32: bool,
    /// Scales of a quantised tensor.
    pub scales: Option<Scales>,
    /// Set by Ctrl-C: reading stops with `Interrupted`.
    pub cancel: Arc<AtomicBool>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { factor: 1.0, as_f32: false, scales: None, cancel: Arc::default() }
    }
}

/// How many NaN and infinite elements a layer has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NonFinite {
    /// Elements that are NaN.
    pub nan: u64,
    /// Elements that are infinite.
    pub infinite: u64,
}

impl NonFinite {
    /// Adds the counts of another part of the same layer.
    pub fn add(&mut self, other: Self) {
        self.nan = self.nan.saturating_add(other.nan);
        self.infinite = self.infinite.saturating_add(other.infinite);
    }

    fn check(self, tensor: &str) -> Result<()> {
        if self == Self::default() {
            return Ok(());
        }
        let message = format!("{} NaN and {} infinite elements", self.nan, self.infinite);
        Err(Error::new(ErrorKind::NonFinite, message).in_tensor(tensor))
    }
}

/// Told a layer's content digest as soon as it is known; `true` says that its result is known too and stops the
/// pass.
pub type OnDigest = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// What reading one shard tells beside its blocks.
#[derive(Debug, Clone, Copy)]
pub struct ShardRead {
    /// Elements that are not finite; there may be blocks that were not visited if there are any.
    pub non_finite: NonFinite,
    /// BLAKE3 of the shard's stored bytes.
    pub digest: [u8; 32],
}

/// Gets a matrix's index and a block of it.
type Visit<'a> = &'a mut dyn FnMut(usize, Block<'_>) -> Result<()>;

/// One layer's matrices as [`Blocks`], read from the file when they are streamed.
///
/// A tall layer is read in runs of rows, two chunks in memory at a time. A wide one (more columns than rows) needs
/// all its stored bytes at once, because its blocks run along the columns; so does one that fits one chunk. Bytes
/// that fit one chunk, or are needed at once, are kept for later passes.
pub struct LayerReader {
    file: Arc<dyn ReadAt>,
    tensor: Tensor,
    shape: Shape,
    cancel: Arc<AtomicBool>,
    whole: Option<Bytes>,
    digest: Option<blake3::Hash>,
    on_digest: Option<OnDigest>,
    known: bool,
}

impl LayerReader {
    /// A reader of these views of `tensor`, which lies in `file`. Views have the same shape and strides, and their
    /// offsets ascend; they lie within the tensor.
    pub fn new(file: Arc<dyn ReadAt>, tensor: Tensor, views: Vec<MatrixView>, options: ReadOptions) -> Self {
        let ReadOptions { factor, as_f32, scales, cancel } = options;
        let shape = Shape { dtype: tensor.dtype, views, factor, as_f32, scales };
        Self { file, tensor, shape, cancel, whole: None, digest: None, on_digest: None, known: false }
    }

    /// Reads what can be read before the first pass: all bytes if they are needed at once. A layer that is streamed
    /// starts reading when it is streamed.
    ///
    /// # Errors
    /// What the source gives.
    pub fn prefetch(&mut self) -> Result<()> {
        if self.whole.is_none() && is_held(&self.shape) {
            let rows = 0..self.shape.first().rows;
            self.whole = Some(self.read_rows(&rows)?);
        }
        Ok(())
    }

    /// Content identity: BLAKE3 of dtype, unfolding and stored bytes (and scales). Known after the first pass.
    pub fn digest(&self) -> Option<String> {
        self.digest.map(|hash| hash.to_hex().to_string())
    }

    fn read_rows(&self, rows: &Range<u64>) -> Result<Bytes> {
        let width = self.shape.dtype.bytes();
        let elements = self.shape.covering(rows.clone());
        let start = self.tensor.range.start;
        self.file
            .read_at(start + elements.start * width..start + elements.end * width)
            .map_err(|error| error.in_tensor(&self.tensor.name))
    }

    /// Calls `hook` once, as soon as the content digest is known: for bytes that are held, before any block is visited,
    /// else at the end of the first pass. If it gives `true`, the pass ends with an error, and
    /// [`LayerReader::take_known`] says so.
    pub fn watch_digest(&mut self, hook: OnDigest) {
        self.on_digest = Some(hook);
    }

    /// Whether a pass was stopped because its result is known; forgets it.
    pub fn take_known(&mut self) -> bool {
        std::mem::take(&mut self.known)
    }

    /// Visits the blocks of one of the layer's [`shards`], reading only its bytes.
    ///
    /// # Errors
    /// `InvalidArgument` if these rows are not a shard of the layer; what reading gives, and what `visit` returns.
    pub fn stream_shard(&self, rows: &Range<u64>, visit: Visit<'_>) -> Result<ShardRead> {
        if !shards(&self.shape.views).is_some_and(|shards| shards.contains(rows)) {
            let message = format!("rows {} to {} are not a shard of the layer", rows.start, rows.end);
            return Err(Error::invalid(message).in_tensor(&self.tensor.name));
        }
        let mut hasher = blake3::Hasher::new();
        let non_finite = self.pass(
            &self.chunks(rows),
            &mut |_, raw| {
                hasher.update(raw);
            },
            visit,
        )?;
        Ok(ShardRead { non_finite, digest: hasher.finalize().into() })
    }

    /// Takes over what reading all shards, in their order, told: the digest of the layer is known from then on.
    ///
    /// # Errors
    /// `NonFinite`, as a pass over the layer gives it; that its result is known, see [`LayerReader::watch_digest`].
    pub fn adopt(&mut self, digests: &[[u8; 32]], non_finite: NonFinite) -> Result<()> {
        self.found_digest(Content::of_shards(&self.shape, digests))?;
        non_finite.check(&self.tensor.name)
    }

    fn found_digest(&mut self, digest: blake3::Hash) -> Result<()> {
        self.digest = Some(digest);
        if self.on_digest.take().is_some_and(|hook| hook(&digest.to_hex())) {
            self.known = true;
            return Err(
                Error::new(ErrorKind::Interrupted, "its result is known").in_tensor(&self.tensor.name)
            );
        }
        Ok(())
    }

    /// The chunks of a run of rows: all of them, or those of one shard.
    fn chunks(&self, rows: &Range<u64>) -> Vec<Range<u64>> {
        let step = if is_held(&self.shape) { self.shape.first().rows } else { chunk_rows(&self.shape) };
        rows.clone().step_by(step.max(1) as usize).map(|r| r..(r + step).min(rows.end)).collect()
    }

    /// The chunks of the whole layer. None lies in two shards.
    fn all_chunks(&self) -> Vec<Range<u64>> {
        match shards(&self.shape.views) {
            Some(shards) => shards.iter().flat_map(|shard| self.chunks(shard)).collect(),
            None => self.chunks(&(0..self.shape.first().rows)),
        }
    }

    /// Feeds every chunk of raw bytes, in order, reading one ahead.
    fn each_chunk(
        &self,
        chunks: &[Range<u64>],
        feed: &mut dyn FnMut(&Range<u64>, &Bytes) -> Result<()>,
    ) -> Result<()> {
        if let Some(whole) = &self.whole {
            return chunks.first().map_or(Ok(()), |rows| feed(rows, whole));
        }
        if let [only] = chunks {
            return feed(only, &self.read_rows(only)?);
        }
        std::thread::scope(|scope| {
            let (send, receive) = sync_channel(0);
            scope.spawn(move || {
                for rows in chunks {
                    let read = self.read_rows(rows);
                    let failed = read.is_err();
                    if send.send(read).is_err() || failed {
                        return;
                    }
                }
            });
            for rows in chunks {
                let raw = receive.recv().map_err(|_| {
                    Error::new(ErrorKind::Internal, "the reading thread stopped").in_tensor(&self.tensor.name)
                })??;
                feed(rows, &raw)?;
            }
            Ok(())
        })
    }

    /// Reads these chunks, tells `raw` their bytes and visits their blocks; after the first element that is not finite,
    /// such elements are only counted.
    fn pass(
        &self,
        chunks: &[Range<u64>],
        raw_bytes: &mut dyn FnMut(&Range<u64>, &[u8]),
        visit: Visit<'_>,
    ) -> Result<NonFinite> {
        let mut window = Window::default();
        let mut bad = NonFinite::default();
        let (tall, step) = (self.shape.is_tall(), block_rows(self.m(), self.count()) as u64);
        let layout = layout_of(tall);
        self.each_chunk(chunks, &mut |rows, raw| {
            raw_bytes(rows, raw);
            let raw_first = self.shape.covering(rows.clone()).start;
            let all_cols = 0..self.shape.first().cols;
            let long = if tall { rows.clone() } else { all_cols.clone() };
            let mut at = long.start;
            while at < long.end {
                if self.cancel.load(Ordering::Relaxed) {
                    return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
                }
                let run = at..(at + step).min(long.end);
                let height = (run.end - run.start) as usize;
                let part = if tall { (run.clone(), all_cols.clone()) } else { (rows.clone(), run.clone()) };
                window.decode_block(&self.shape, (raw, raw_first), part, &mut |matrix, values| {
                    count_non_finite(values, &mut bad);
                    if bad == NonFinite::default() {
                        visit(matrix, Block { values, rows: height, layout })
                    } else {
                        Ok(()) // the rest is only counted
                    }
                })?;
                at = run.end;
            }
            Ok(())
        })?;
        Ok(bad)
    }
}

impl Blocks for LayerReader {
    fn count(&self) -> usize {
        self.shape.views.len()
    }

    fn n(&self) -> usize {
        let view = self.shape.first();
        view.rows.max(view.cols) as usize
    }

    fn m(&self) -> usize {
        let view = self.shape.first();
        view.rows.min(view.cols) as usize
    }

    fn shard_rows(&self) -> Option<usize> {
        shard_rows(&self.shape.views).map(|rows| rows as usize)
    }

    fn stream(&mut self, visit: &mut dyn FnMut(usize, Block<'_>) -> Result<()>) -> Result<()> {
        self.prefetch()?;
        let chunks = self.all_chunks();
        let mut content = None;
        match (self.digest, &self.whole) {
            (Some(digest), _) => self.found_digest(digest)?,
            (None, Some(whole)) => {
                let mut held = Content::new(&self.shape);
                held.update(&(0..self.shape.first().rows), whole);
                self.found_digest(held.finish())?;
            }
            (None, None) => content = Some(Content::new(&self.shape)),
        }
        let mut take = |rows: &Range<u64>, raw: &[u8]| {
            if let Some(content) = &mut content {
                content.update(rows, raw);
            }
        };
        let bad = self.pass(&chunks, &mut take, visit)?;
        if let Some(content) = content {
            self.found_digest(content.finish())?;
        }
        bad.check(&self.tensor.name)
    }
}

/// Whether all stored bytes of the layer are held in memory at once.
fn is_held(shape: &Shape) -> bool {
    let view = shape.first();
    let covering = shape.covering(0..view.rows);
    let bytes = (covering.end - covering.start) * shape.dtype.bytes();
    bytes <= CHUNK_BYTES || !shape.is_tall() || !shape.rows_are_apart()
}

/// Rows of a chunk: as many whole blocks as fit [`CHUNK_BYTES`], at least one.
fn chunk_rows(shape: &Shape) -> u64 {
    let view = shape.first();
    let block = block_rows(view.rows.min(view.cols) as usize, shape.views.len()) as u64;
    let row_bytes = view.row_stride * shape.dtype.bytes();
    (CHUNK_BYTES / row_bytes.max(1) / block).max(1) * block
}

/// Stored bytes of a layer that are in memory at the same time, and the bytes of f64 blocks decoded from them.
pub fn bytes_needed(tensor: &Tensor, views: &[MatrixView]) -> u64 {
    let shape =
        Shape { dtype: tensor.dtype, views: views.to_vec(), factor: 1.0, as_f32: false, scales: None };
    let view = shape.first();
    let rows = if is_held(&shape) { view.rows } else { chunk_rows(&shape).min(view.rows) };
    let covering = shape.covering(0..rows);
    let copies = if is_held(&shape) { 1 } else { 2 };
    let raw = (covering.end - covering.start) * shape.dtype.bytes() * copies;
    let (n, m) = (view.rows.max(view.cols), view.rows.min(view.cols));
    let block = (block_rows(m as usize, views.len()) as u64).min(n);
    let buffers = if views.len() > 1 { view.col_stride.max(1) + 1 } else { 1 };
    raw.saturating_add(block.saturating_mul(m).saturating_mul(8 * buffers))
}

fn count_non_finite(values: &[f64], bad: &mut NonFinite) {
    // 0·x is NaN for NaN and infinity alone; eight sums keep the loop in vector registers
    let mut sums = [0.0f64; 8];
    let (runs, rest) = values.as_chunks::<8>();
    for run in runs {
        for (sum, value) in sums.iter_mut().zip(run) {
            *sum += value * 0.0;
        }
    }
    let clean = sums.iter().sum::<f64>() == 0.0 && rest.iter().all(|value| value.is_finite());
    if !clean {
        bad.nan += values.iter().filter(|value| value.is_nan()).count() as u64;
        bad.infinite += values.iter().filter(|value| value.is_infinite()).count() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::DType;
    use crate::format::testing::MemoryFile;
    use crate::tensor::{Layout, Shuffled};

    /// A tensor of F32 values 0, 1, 2, … in a file of its own.
    fn counting_tensor(elements: u64) -> (Arc<dyn ReadAt>, Tensor) {
        let bytes: Vec<u8> = (0..elements).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let range = 0..bytes.len() as u64;
        let shape = vec![elements];
        let tensor = Tensor { name: "t".to_owned(), dtype: DType::F32, shape, file: 0, range };
        (Arc::new(MemoryFile::new("m", bytes)), tensor)
    }

    /// All matrices in the tall orientation, row-major, put together from their blocks.
    fn collect(blocks: &mut dyn Blocks) -> Vec<Vec<f64>> {
        let m = blocks.m();
        let mut all = vec![Vec::new(); blocks.count()];
        blocks
            .stream(&mut |matrix, block| {
                for r in 0..block.rows {
                    all[matrix].extend((0..m).map(|c| match block.layout {
                        Layout::RowMajor => block.values[r * m + c],
                        Layout::ColumnMajor => block.values[c * block.rows + r],
                    }));
                }
                Ok(())
            })
            .unwrap();
        all
    }

    /// What a view's elements must be: the value is the element's place.
    fn expected(view: &MatrixView) -> Vec<f64> {
        let at = |r: u64, c: u64| (view.offset + r * view.row_stride + c * view.col_stride) as f64;
        let (n, m) = (view.rows.max(view.cols), view.rows.min(view.cols));
        let tall = view.rows >= view.cols;
        (0..n).flat_map(|r| (0..m).map(move |c| if tall { at(r, c) } else { at(c, r) })).collect()
    }

    fn view(offset: u64, (rows, cols): (u64, u64), (row_stride, col_stride): (u64, u64)) -> MatrixView {
        MatrixView { offset, rows, cols, row_stride, col_stride }
    }

    #[test]
    fn every_kind_of_view_gives_its_elements() {
        let kernel = |offsets: std::ops::Range<u64>, shape, strides| {
            offsets.map(|offset| view(offset, shape, strides)).collect::<Vec<_>>()
        };
        let cases = [
            ("whole tall", vec![view(0, (900, 7), (7, 1))]),
            ("whole wide", vec![view(0, (5, 1000), (1000, 1))]),
            ("rows of a fused tensor", vec![view(600, (50, 12), (12, 1))]),
            ("columns of a fused tensor", vec![view(20, (100, 20), (60, 1))]),
            ("convolution, out ≥ in", kernel(0..9, (30, 20), (180, 9))),
            ("convolution, out < in", kernel(0..9, (6, 500), (4500, 9))),
            ("depthwise", kernel(0..3, (64, 1), (3, 3))),
            ("one slice", kernel(4..5, (30, 20), (180, 9))),
            ("an expert, transposed", vec![view(350, (20, 30), (1, 20))]),
            ("one element", vec![view(3, (1, 1), (1, 1))]),
        ];
        for (name, views) in cases {
            let (file, tensor) = counting_tensor(30_000);
            let mut reader = LayerReader::new(file, tensor, views.clone(), ReadOptions::default());
            let wanted: Vec<Vec<f64>> = views.iter().map(expected).collect();
            assert_eq!(collect(&mut reader), wanted, "{name}");
            let digest = reader.digest();
            assert_eq!(collect(&mut reader), wanted, "{name}, again");
            assert!(digest.is_some() && digest == reader.digest(), "{name}");
        }
    }

    #[test]
    fn a_tall_layer_is_read_in_chunks_that_tile_it_once_a_pass() {
        let (rows, cols) = (700_000, 5); // 14 MB
        let bytes = vec![1u8; (rows * cols * 4) as usize];
        let range = 0..bytes.len() as u64;
        let file = Arc::new(MemoryFile::new("m", bytes));
        let tensor =
            Tensor { name: "t".to_owned(), dtype: DType::F32, shape: vec![rows, cols], file: 0, range };
        let views = vec![view(0, (rows, cols), (cols, 1))];
        assert!(bytes_needed(&tensor, &views) <= 3 * CHUNK_BYTES);
        let mut reader = LayerReader::new(file.clone(), tensor, views, ReadOptions::default());
        reader.prefetch().unwrap();
        let mut seen = 0;
        reader
            .stream(&mut |_, block| {
                seen += block.rows as u64;
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, rows);
        let reads = file.reads.lock().unwrap().clone();
        assert!(reads.len() > 1 && reads.iter().all(|r| r.end - r.start <= CHUNK_BYTES));
        assert_eq!(reads[0].start, 0);
        assert!(reads.windows(2).all(|pair| pair[0].end == pair[1].start));
    }

    #[test]
    fn the_digest_follows_content_and_unfolding_not_chunks_or_names() {
        let digest = |name: &str, shape: (u64, u64), elements| {
            let (file, mut tensor) = counting_tensor(elements);
            tensor.name = name.to_owned();
            let mut reader =
                LayerReader::new(file, tensor, vec![view(0, shape, (shape.1, 1))], ReadOptions::default());
            collect(&mut reader);
            reader.digest().unwrap()
        };
        assert_eq!(digest("a", (60, 50), 3000), digest("b", (60, 50), 3000));
        assert_ne!(digest("a", (60, 50), 3000), digest("a", (50, 60), 3000));
        assert_ne!(digest("a", (60, 50), 3000), digest("a", (60, 49), 3000));
    }

    /// What docs/metrics.md says of the digest, put together by hand.
    fn digest_of(version: &str, shape: [u64; 2], content: &[&[u8]]) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("spectrald layer content {version}\0F8_E5M2").as_bytes());
        for n in [0, shape[0], shape[1], shape[1], 1] {
            hasher.update(&n.to_le_bytes());
        }
        content.iter().for_each(|bytes| {
            hasher.update(bytes);
        });
        hasher.finalize().to_hex().to_string()
    }

    #[test]
    fn the_digest_of_a_layer_in_shards_is_made_of_theirs() {
        for (rows, cols) in [(2000, 1344), (11_620, 1344)] {
            let bytes: Vec<u8> = (0..rows * cols).map(|i| (i % 0x7b) as u8).collect();
            let range = 0..bytes.len() as u64;
            let shape = vec![rows, cols];
            let tensor = Tensor { name: "t".to_owned(), dtype: DType::F8E5M2, shape, file: 0, range };
            let file = Arc::new(MemoryFile::new("m", bytes.clone()));
            let views = vec![view(0, (rows, cols), (cols, 1))];
            let open =
                || LayerReader::new(file.clone(), tensor.clone(), views.clone(), ReadOptions::default());
            let mut reader = open();
            reader.stream(&mut |_, _| Ok(())).unwrap();
            let Some(shards) = shards(&views) else {
                assert_eq!(reader.digest(), Some(digest_of("v1", [rows, cols], &[&bytes])));
                continue;
            };
            let of = |rows: &Range<u64>| &bytes[(rows.start * cols) as usize..(rows.end * cols) as usize];
            let hashes: Vec<[u8; 32]> = shards.iter().map(|rows| blake3::hash(of(rows)).into()).collect();
            let content: Vec<&[u8]> = hashes.iter().map(|hash| &hash[..]).collect();
            assert_eq!(reader.digest(), Some(digest_of("v2", [rows, cols], &content)));
            let mut reader = open();
            reader.adopt(&hashes, NonFinite::default()).unwrap();
            assert_eq!(reader.digest(), Some(digest_of("v2", [rows, cols], &content)), "adopted");
            file.reads.lock().unwrap().clear();
            let mut seen = 0;
            let read = open()
                .stream_shard(&shards[1], &mut |_, block| {
                    seen += block.rows as u64;
                    Ok(())
                })
                .unwrap();
            assert_eq!((read.digest, seen), (hashes[1], shards[1].end - shards[1].start));
            let reads = file.reads.lock().unwrap().clone();
            assert_eq!((reads[0].start, reads[reads.len() - 1].end), (5760 * cols, 11_520 * cols));
            assert!(reads.windows(2).all(|pair| pair[0].end == pair[1].start), "its bytes, once");
        }
    }

    #[test]
    fn not_finite_elements_are_counted_over_the_whole_layer() {
        let mut values = vec![1.0f32; 5000];
        values[3] = f32::NAN;
        values[2500] = f32::INFINITY;
        values[4999] = f32::NEG_INFINITY;
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let range = 0..bytes.len() as u64;
        let tensor = Tensor { name: "t".to_owned(), dtype: DType::F32, shape: vec![1000, 5], file: 0, range };
        let file = Arc::new(MemoryFile::new("m", bytes));
        let mut reader =
            LayerReader::new(file, tensor, vec![view(0, (1000, 5), (5, 1))], ReadOptions::default());
        let error = reader.stream(&mut |_, _| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NonFinite);
        assert_eq!(error.to_string(), "tensor 't': 1 NaN and 2 infinite elements");
    }

    #[test]
    fn elements_are_rounded_to_f32_on_request() {
        let bytes: Vec<u8> = (0..20).flat_map(|i| (f64::from(i) / 3.0).to_le_bytes()).collect();
        let range = 0..bytes.len() as u64;
        let tensor = Tensor { name: "t".to_owned(), dtype: DType::F64, shape: vec![5, 4], file: 0, range };
        let file = Arc::new(MemoryFile::new("m", bytes));
        for as_f32 in [false, true] {
            let options = ReadOptions { as_f32, ..ReadOptions::default() };
            let views = vec![view(0, (5, 4), (4, 1))];
            let mut reader =
                LayerReader::new(Arc::<MemoryFile>::clone(&file), tensor.clone(), views, options);
            let third = if as_f32 { f64::from(1.0f32 / 3.0) } else { 1.0 / 3.0 };
            assert_eq!(collect(&mut reader)[0][1], third);
        }
    }

    #[test]
    fn cancelling_stops_between_blocks() {
        let (file, tensor) = counting_tensor(5000);
        let options = ReadOptions::default();
        let cancel = Arc::clone(&options.cancel);
        let mut reader = LayerReader::new(file, tensor, vec![view(0, (1000, 5), (5, 1))], options);
        let mut blocks = 0;
        let error = reader
            .stream(&mut |_, _| {
                blocks += 1;
                cancel.store(true, Ordering::Relaxed);
                Ok(())
            })
            .unwrap_err();
        assert_eq!((error.kind(), blocks), (ErrorKind::Interrupted, 1));
    }

    #[test]
    fn a_shuffle_permutes_each_matrix_and_repeats_with_its_seed() {
        for exact in [true, false] {
            let (file, tensor) = counting_tensor(1800);
            let views = (0..9).map(|offset| view(offset, (20, 10), (90, 9))).collect();
            let mut reader = LayerReader::new(file, tensor, views, ReadOptions::default());
            let before = collect(&mut reader);
            let shuffled = |seed| {
                let (file, tensor) = counting_tensor(1800);
                let views = (0..9).map(|offset| view(offset, (20, 10), (90, 9))).collect();
                let mut reader = LayerReader::new(file, tensor, views, ReadOptions::default());
                let mut copy = Shuffled::copy(&mut reader, exact).unwrap();
                copy.shuffle(seed);
                collect(&mut copy)
            };
            assert_eq!(shuffled(7), shuffled(7));
            assert_ne!(shuffled(7), shuffled(8));
            for (own, permuted) in before.iter().zip(shuffled(7)) {
                assert_ne!(own, &permuted);
                let sorted = |values: &[f64]| {
                    let mut values = values.to_vec();
                    values.sort_by(f64::total_cmp);
                    values
                };
                assert_eq!(sorted(own), sorted(&permuted), "the same elements");
            }
        }
    }
}
