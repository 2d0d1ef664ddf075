//! A stream of bytes that knows its position, and the errors of the two formats. A file may be
//! broken anywhere, so every error gives the offset, in decoded bytes, at which it shows.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What is wrong with an input, and where.
#[derive(Debug)]
pub(crate) struct DecodeError {
    /// Bytes of decoded (decompressed) input before the one that shows the problem.
    pub(crate) offset: u64,
    pub(crate) problem: Problem,
}

/// The ways in which an input can be broken.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The input could not be read, or could not be decompressed.
    Io(io::Error),
    /// The input ends inside the named part.
    Truncated(&'static str),
    /// Bytes follow where the format says that nothing does.
    Trailing,
    /// A heap graph does not begin with its magic number.
    Magic([u8; 4]),
    /// A heap graph without objects has no root.
    NoRoot,
    /// The degrees of a heap graph do not add up to its number of edges.
    DegreeSum { sum: u64, edges: u32 },
    /// An edge leads to an object that does not exist.
    Target { target: u32, objects: u32 },
    /// An object cannot be reached from the root.
    Unreachable { object: u32 },
    /// A number of a trace does not fit 64 bits.
    VarintTooLong,
    /// A free of an object that has not been allocated yet, or is before the first one.
    FreeOfUnknown { back: u64, allocated: u64 },
    /// A free of an object that is already free.
    FreedTwice { object: u64 },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {} of the decoded input: ", self.offset)?;
        match &self.problem {
            Problem::Io(_) => f.write_str("it cannot be read further"),
            Problem::Truncated(what) => write!(f, "it ends inside {what}"),
            Problem::Trailing => f.write_str("bytes follow the last edge"),
            Problem::Magic(found) => {
                write!(
                    f,
                    "a heap graph begins with \"HG1\\0\", not \"{}\"",
                    found.escape_ascii()
                )
            }
            Problem::NoRoot => f.write_str("the graph has no objects, so it has no root"),
            Problem::DegreeSum { sum, edges } => {
                write!(
                    f,
                    "the degrees add up to {sum}, but the header says {edges} edges"
                )
            }
            Problem::Target { target, objects } => {
                write!(
                    f,
                    "an edge leads to object {target}, but there are only {objects}"
                )
            }
            Problem::Unreachable { object } => {
                write!(f, "object {object} cannot be reached from the root")
            }
            Problem::VarintTooLong => f.write_str("a number does not fit 64 bits"),
            Problem::FreeOfUnknown { back, allocated } => {
                write!(
                    f,
                    "a free goes {back} objects back, after {allocated} allocations"
                )
            }
            Problem::FreedTwice { object } => write!(f, "object {object} is freed twice"),
        }
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// An input with a buffer of its own and a count of the bytes taken from it.
#[derive(Debug)]
pub(crate) struct Input<R> {
    from: R,
    buffer: Box<[u8]>,
    /// `buffer[next..end]` has been read and not taken.
    next: usize,
    end: usize,
    /// The offset in the input of `buffer[0]`.
    start: u64,
}

impl<R: Read> Input<R> {
    pub(crate) fn new(from: R) -> Self {
        Self {
            from,
            buffer: vec![0; 16 << 10].into(),
            next: 0,
            end: 0,
            start: 0,
        }
    }

    /// How many bytes have been taken.
    pub(crate) fn offset(&self) -> u64 {
        self.start + self.next as u64
    }

    /// An error at the present offset.
    pub(crate) fn error(&self, problem: Problem) -> DecodeError {
        DecodeError {
            offset: self.offset(),
            problem,
        }
    }

    /// Takes one byte; `None` at the end of the input.
    #[inline]
    pub(crate) fn byte(&mut self) -> Result<Option<u8>, DecodeError> {
        if self.next == self.end && !self.fill()? {
            return Ok(None);
        }
        let byte = self.buffer[self.next];
        self.next += 1;
        Ok(Some(byte))
    }

    /// Takes `N` bytes; `what` is the part of the format that they belong to.
    #[inline]
    pub(crate) fn take<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let mut taken = [0; N];
        for byte in &mut taken {
            *byte = self
                .byte()?
                .ok_or_else(|| self.error(Problem::Truncated(what)))?;
        }
        Ok(taken)
    }

    /// Reads more into the buffer, all of which has been taken. False at the end.
    #[cold]
    fn fill(&mut self) -> Result<bool, DecodeError> {
        self.start += self.end as u64;
        (self.next, self.end) = (0, 0);
        self.end = loop {
            match self.from.read(&mut self.buffer) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(Problem::Io(error))),
            }
        };
        Ok(self.end > 0)
    }
}

/// Opens a recorded file. One whose name ends in `.zst` is decompressed as it is read.
pub(crate) fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let file = File::open(path)?;
    if path.extension().is_some_and(|extension| extension == "zst") {
        Ok(Box::new(zstd::stream::read::Decoder::new(file)?))
    } else {
        Ok(Box::new(file))
    }
}

/// A file whose bytes are in memory, as far as it could be read; then comes the error, if there was
/// one.
pub(crate) struct InMemory {
    bytes: io::Cursor<Vec<u8>>,
    error: Option<io::Error>,
}

/// Reads a file to its end.
pub(crate) fn in_memory(mut file: Box<dyn Read + Send>) -> InMemory {
    let mut bytes = Vec::new();
    let error = file.read_to_end(&mut bytes).err();
    InMemory {
        bytes: io::Cursor::new(bytes),
        error,
    }
}

impl Read for InMemory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        match self.error.take() {
            Some(error) if count == 0 => Err(error),
            error => {
                self.error = error;
                Ok(count)
            }
        }
    }
}
