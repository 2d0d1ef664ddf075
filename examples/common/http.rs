//! The part of HTTP/1.1 that an echo server needs: a line, headers, a body of a known length.

use std::io;

/// The longest message, heads included, in bytes.
const LONGEST: usize = 1 << 20;
/// Asked of the system at a time.
const PIECE: usize = 4096;

/// One message.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// The first line.
    pub(crate) start: &'a str,
    heads: &'a str,
    pub(crate) body: &'a [u8],
}

impl Message<'_> {
    /// The value of a head that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        number(self.heads, name)
    }
}

fn number(heads: &str, name: &str) -> Option<u64> {
    let mut heads = heads.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = heads.find(|(given, _)| given.eq_ignore_ascii_case(name))?;
    value.trim().parse().ok()
}

/// Writes a message behind what is in `to`.
pub(crate) fn write(to: &mut Vec<u8>, start: &str, heads: &[(&str, u64)], body: &[u8]) {
    let length = ("Content-Length", body.len() as u64);
    to.extend(start.as_bytes());
    for (name, value) in heads.iter().chain([&length]) {
        to.extend(format!("\r\n{name}: {value}").as_bytes());
    }
    to.extend(b"\r\n\r\n");
    to.extend(body);
}

/// The messages of a connection, one after another, whoever reads the bytes.
#[derive(Debug)]
pub(crate) struct Messages {
    /// Bytes that were read, and room for more.
    buffer: Vec<u8>,
    read: usize,
    /// Where the heads of the first message end, and where the message does, once all of it is
    /// there.
    ends: Option<(usize, usize)>,
}

impl Messages {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; PIECE],
            read: 0,
            ends: None,
        }
    }

    /// Room to read into; [`filled`](Self::filled) says how much was read.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.buffer.len() < self.read + PIECE {
            self.buffer.resize(self.read + PIECE, 0);
        }
        &mut self.buffer[self.read..]
    }

    /// So many bytes were read into the room.
    pub(crate) fn filled(&mut self, count: usize) {
        self.read += count;
    }

    /// Whether a message is whole.
    pub(crate) fn is_whole(&mut self) -> io::Result<bool> {
        if self.ends.is_none() {
            self.ends = ends(&self.buffer[..self.read])?;
        }
        Ok(self.ends.is_some())
    }

    /// Whether nothing is left over.
    pub(crate) fn is_empty(&self) -> bool {
        self.read == 0
    }

    /// The first message, which is whole.
    pub(crate) fn first(&self) -> io::Result<Message<'_>> {
        let (heads_end, end) = self.ends.ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = text(&self.buffer[..heads_end])?;
        let (start, heads) = head.split_once("\r\n").unwrap_or((head, ""));
        let body = &self.buffer[heads_end + 4..end];
        Ok(Message { start, heads, body })
    }

    /// Done with the first message.
    pub(crate) fn forget_first(&mut self) {
        if let Some((_, end)) = self.ends.take() {
            self.buffer.copy_within(end..self.read, 0);
            self.read -= end;
        }
    }
}

/// Where the heads of the first message end, and where the message does, if all of it is there.
fn ends(read: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let Some(heads_end) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if read.len() > LONGEST {
            Err(invalid("too long"))
        } else {
            Ok(None)
        };
    };
    let length = number(text(&read[..heads_end])?, "Content-Length").unwrap_or(0);
    if length > LONGEST as u64 {
        return Err(invalid("too long"));
    }
    let end = heads_end + 4 + length as usize;
    Ok((end <= read.len()).then_some((heads_end, end)))
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    str::from_utf8(bytes).map_err(|_| invalid("not UTF-8"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
