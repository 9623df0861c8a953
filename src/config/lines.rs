//! Line numbers of a text.

/// Where the lines of a text begin, so that a line number costs no walk through the text.
pub(crate) struct LineNumbers {
    /// The first byte of each line but the first.
    starts: Vec<usize>,
}

impl LineNumbers {
    /// Those of `text`.
    pub(crate) fn new(text: &str) -> Self {
        Self {
            starts: text.bytes().zip(1..).filter(|(byte, _)| *byte == b'\n').map(|(_, next)| next).collect(),
        }
    }

    /// The line, from 1, of the byte at `at`.
    pub(crate) fn at(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at) + 1
    }
}
