//! A tour of the library: several threads edit one document, a graph full of cycles, while
//! the collector runs beside them.
//!
//! ```text
//! cargo run --release --example tour
//! ```
//!
//! ```text
//!   Document ──> [Section, Section, ..]     a slice: its length never changes
//!      ^              |    ^
//!      └──────────────┘    |                the way up: a GcOnce, set after both exist
//!                     v    |
//!        GcLock<Vec<Paragraph>>             a Vec that any thread may change
//!                     |    ^
//!                     v    |                the way up: a GcCell, changed by every move
//!                  Paragraph
//!                     |
//!                     v                     the present text: a GcCell, swapped by an edit
//!                   Text ──> Text ──> ..    what it said before, for undo
//! ```
//!
//! Bookmarks are `Weak`: they do not keep a deleted paragraph. What a thread has cut and not
//! pasted yet is in its `Frame`. The document itself is held by one `Root`.
//!
//! At the end the whole document is walked: every way down must have its way up, every text
//! must be what was written, and the number of paragraphs must be what the threads say that
//! they added and deleted.

use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use greywave::{Frame, Gc, GcCell, GcLock, GcOnce, Heap, Mutator, Root, Trace, Weak};

mod common;
use common::args::{self, Args};
use common::report::{self, Bytes, Latency, Nanos, say};
use common::rng::Rng;
use common::words::{Words, checksum};

const USAGE: &str = "usage: tour [--threads N] [--seconds N] [--paragraphs N] [--seed N]
  --threads N     editing threads, 1 to 256 (default: one for each processor, at least 2)
  --seconds N     how long to edit, 1 to 86400 (default 6)
  --paragraphs N  in the document at the start, 1 to 10000000 (default 500000)
  --seed N        of the random edits (default 1)";

/// Paragraphs in a section, at the start.
const SECTION: usize = 128;
/// Texts that a paragraph can go back to.
const UNDO: usize = 1;
/// Paragraphs that a thread may have cut and not pasted.
const CLIPBOARD: usize = 32;
/// Names of bookmarks.
const BOOKMARKS: usize = 4096;

/// The whole document.
#[derive(Trace)]
struct Document<'gc> {
    title: Gc<'gc, str>,
    sections: Gc<'gc, [SectionPtr<'gc>]>,
    bookmarks: GcLock<HashMap<usize, Weak<'gc, Paragraph<'gc>>>>,
}

/// A part of the document, which always stays where it is.
#[derive(Trace)]
struct Section<'gc> {
    document: GcOnce<'gc, Document<'gc>>,
    paragraphs: GcLock<Vec<ParagraphPtr<'gc>>>,
}

/// What is added, edited, moved and deleted.
#[derive(Trace)]
struct Paragraph<'gc> {
    /// None while it is on a clipboard, and once it is deleted.
    section: GcCell<'gc, Section<'gc>>,
    text: GcCell<'gc, Text<'gc>>,
}

type SectionPtr<'gc> = Gc<'gc, Section<'gc>>;
type ParagraphPtr<'gc> = Gc<'gc, Paragraph<'gc>>;

/// One state of a paragraph. It never changes, but forgets the states before it.
#[derive(Trace)]
struct Text<'gc> {
    words: Gc<'gc, str>,
    sum: u64,
    before: GcCell<'gc, Text<'gc>>,
}

/// How to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) threads: usize,
    pub(crate) time: Duration,
    pub(crate) paragraphs: usize,
    pub(crate) seed: u64,
}

/// What the threads did, all together.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) time: Duration,
    pub(crate) paragraphs: u64,
    pub(crate) latency: Latency,
    counts: Counts,
}

fn main() -> ExitCode {
    args::main(USAGE, |args| {
        let options = parse(args)?;
        let heap = Heap::builder().build()?;
        let report = run(&heap, options, |line| say(line))?;
        summary(&heap, options, &report);
        Ok(())
    })
}

fn parse(mut args: Args) -> Result<Options, Box<dyn Error>> {
    let processors = thread::available_parallelism().map_or(2, |it| it.get().clamp(2, 256));
    let options = Options {
        threads: args.number("--threads", processors, 1..=256)?,
        time: Duration::from_secs(args.number("--seconds", 6, 1..=86_400)?),
        paragraphs: args.number("--paragraphs", 500_000, 1..=10_000_000)?,
        seed: args.number("--seed", 1, 0..=u64::MAX)?,
    };
    args.words(0..=0)?;
    Ok(options)
}

/// Writes a document, lets the threads edit it, and checks it. `say` gets a line a second.
pub(crate) fn run(
    heap: &Heap,
    options: Options,
    mut say: impl FnMut(&str),
) -> Result<Report, Box<dyn Error>> {
    let document = write_document(heap, options)?;
    say(&format!(
        "wrote {} paragraphs, {}",
        options.paragraphs,
        Bytes(heap.stats().heap_bytes)
    ));

    let (stop, edits) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    let editors = thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads)
            .map(|number| {
                let (document, stop, edits) = (document.clone(), &stop, &edits);
                scope.spawn(move || Editor::run(heap, document, options.seed, number, stop, edits))
            })
            .collect();
        watch(heap, start, options.time, &edits, &mut say);
        // Relaxed: the flag is all that is shared.
        stop.store(true, Ordering::Relaxed);
        // All of them must have ended before this returns, whatever the first one says.
        let ended: Vec<_> = threads
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        ended.into_iter().collect::<Result<Vec<_>, _>>()
    });
    let time = start.elapsed();

    let (mut counts, mut latency) = (Counts::default(), Latency::new());
    for editor in editors.map_err(|_| "an editing thread panicked")? {
        let (editor_counts, editor_latency) = editor?;
        for (sum, count) in counts.iter_mut().zip(editor_counts) {
            *sum += count;
        }
        latency.add(&editor_latency);
    }
    let mut m = heap.attach()?;
    m.collect();
    let paragraphs = check_document(document.get(&m))?;
    let [added, deleted] = [Edit::Add, Edit::Delete].map(|edit| counts[edit as usize]);
    let expected = options.paragraphs as u64 + added - deleted;
    if paragraphs != expected {
        return Err(format!("{paragraphs} paragraphs are left, not {expected}").into());
    }
    heap.verify()?;
    Ok(Report {
        time,
        paragraphs,
        latency,
        counts,
    })
}

/// Says how it goes, once a second, until the time is over.
fn watch(
    heap: &Heap,
    start: Instant,
    time: Duration,
    edits: &AtomicU64,
    say: &mut impl FnMut(&str),
) {
    let mut before = 0;
    while let Some(left) = time
        .checked_sub(start.elapsed())
        .filter(|left| !left.is_zero())
    {
        thread::sleep(left.min(Duration::from_secs(1)));
        // Relaxed: a count for people.
        let now = edits.load(Ordering::Relaxed);
        let stats = heap.stats();
        say(&format!(
            "{:4.0} s  {:>9} edits  heap {:>9} of {:>9}  {:>4} cycles  longest pause {:>8}  memory {}",
            start.elapsed().as_secs_f64(),
            now - before,
            Bytes(stats.heap_bytes),
            Bytes(stats.goal_bytes),
            stats.cycles,
            Nanos(stats.pauses.max_ns),
            report::memory(report::rss()),
        ));
        before = now;
    }
}

/// Writes a document of so many paragraphs.
fn write_document(
    heap: &Heap,
    options: Options,
) -> Result<Root<Document<'static>>, Box<dyn Error>> {
    let mut m = heap.attach()?;
    let sections = options.paragraphs.div_ceil(SECTION);
    let section = || {
        m.alloc(Section {
            document: GcOnce::empty(),
            paragraphs: GcLock::new(Vec::new()),
        })
    };
    let document = m.alloc(Document {
        title: m.alloc_str("A tour of the heap"),
        sections: m.alloc_slice(sections, |_| section()),
        bookmarks: GcLock::new(HashMap::new()),
    });
    for section in document.sections.iter() {
        if section.document.set(&m, document).is_err() {
            return Err("a new section has a document".into());
        }
    }
    let document = m.root(document);

    let mut writer = Writer::new(options.seed, 0);
    for number in 0..options.paragraphs {
        {
            // What is borrowed from `m` here is gone at the safepoint below.
            let section = document.get(&m).sections[number / SECTION];
            let paragraph = writer.paragraph(&m, section);
            section.paragraphs.write(&m).push(paragraph);
        }
        m.safepoint();
    }
    Ok(document)
}

/// Makes new texts and paragraphs.
struct Writer {
    rng: Rng,
    words: Words,
}

impl Writer {
    fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Rng::new(seed, stream);
        let words = Words::new(&mut rng);
        Self { rng, words }
    }

    fn text<'m>(&mut self, m: &'m Mutator, before: Option<Gc<'m, Text<'m>>>) -> Gc<'m, Text<'m>> {
        let words = self.words.next(&mut self.rng);
        let (words, sum) = (m.alloc_str(words), checksum(words));
        let before = GcCell::new(before);
        m.alloc(Text { words, sum, before })
    }

    fn paragraph<'m>(&mut self, m: &'m Mutator, section: SectionPtr<'m>) -> ParagraphPtr<'m> {
        let section = GcCell::new(Some(section));
        let text = GcCell::new(Some(self.text(m, None)));
        m.alloc(Paragraph { section, text })
    }
}

/// What an editor may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Read,
    Rewrite,
    Undo,
    Add,
    Delete,
    Cut,
    Paste,
    SetBookmark,
    FollowBookmark,
}

impl Edit {
    const ALL: [Self; 9] = [
        Self::Read,
        Self::Rewrite,
        Self::Undo,
        Self::Add,
        Self::Delete,
        Self::Cut,
        Self::Paste,
        Self::SetBookmark,
        Self::FollowBookmark,
    ];

    /// As often as an editor does it. As much is added as deleted, so the document keeps
    /// its size.
    fn choose(rng: &mut Rng) -> Self {
        match rng.below(100) {
            0..30 => Self::Read,
            30..50 => Self::Rewrite,
            50..55 => Self::Undo,
            55..67 => Self::Add,
            67..79 => Self::Delete,
            79..86 => Self::Cut,
            86..93 => Self::Paste,
            93..96 => Self::SetBookmark,
            _ => Self::FollowBookmark,
        }
    }
}

/// How often each edit was done. One that found nothing to do is not counted.
type Counts = [u64; Edit::ALL.len()];

/// A thread that edits the document.
struct Editor {
    document: Root<Document<'static>>,
    clipboard: Frame<Vec<ParagraphPtr<'static>>>,
    writer: Writer,
    counts: Counts,
}

impl Editor {
    fn run(
        heap: &Heap,
        document: Root<Document<'static>>,
        seed: u64,
        number: usize,
        stop: &AtomicBool,
        edits: &AtomicU64,
    ) -> Result<(Counts, Latency), String> {
        let mut m = heap.attach().map_err(|error| error.to_string())?;
        let clipboard = Frame::new(&m, Vec::new());
        let writer = Writer::new(seed, 1 + number as u64);
        let mut this = Self {
            document,
            clipboard,
            writer,
            counts: Counts::default(),
        };
        let mut latency = Latency::new();
        let mut before = Instant::now();
        // Relaxed: the flag is all that is shared.
        while !stop.load(Ordering::Relaxed) {
            let edit = Edit::choose(&mut this.writer.rng);
            this.edit(&m, edit)?;
            m.safepoint();
            // The next one starts where this one ended: so a pause counts as part of an edit.
            let now = Instant::now();
            latency.record(now - before);
            before = now;
            if latency.count().is_multiple_of(256) {
                // Relaxed: a count for people.
                edits.fetch_add(256, Ordering::Relaxed);
            }
        }
        while this.edit(&m, Edit::Paste)? {}
        Ok((this.counts, latency))
    }

    /// Does one thing, if there is something to do it to.
    fn edit(&mut self, m: &Mutator, edit: Edit) -> Result<bool, String> {
        let document = self.document.get(m);
        let section = document.sections[self.writer.rng.below(document.sections.len())];
        let done = match edit {
            Edit::Read => self.read(document, section)?,
            Edit::Rewrite => self.rewrite(m, section),
            Edit::Undo => self.undo(m, section),
            Edit::Add => {
                let paragraph = self.writer.paragraph(m, section);
                self.insert(m, section, paragraph)
            }
            // Nothing more: the collector finds out whether something still holds it.
            Edit::Delete => self.remove(m, section).is_some(),
            Edit::Cut => self.cut(m, section),
            Edit::Paste => self.paste(m, section),
            Edit::SetBookmark => self.set_bookmark(m, document, section),
            Edit::FollowBookmark => self.follow_bookmark(m, document)?,
        };
        self.counts[edit as usize] += u64::from(done);
        Ok(done)
    }

    /// A random paragraph of the section. The lock is free again when this returns: the
    /// paragraph may be moved or deleted at any time, but its memory stays until this
    /// thread's next safepoint.
    fn pick<'m>(&mut self, section: SectionPtr<'m>) -> Option<ParagraphPtr<'m>> {
        let paragraphs = section.paragraphs.read();
        let len = paragraphs.len();
        (len > 0).then(|| paragraphs[self.writer.rng.below(len)])
    }

    /// Reads a paragraph, and goes up from it to the document.
    fn read<'m>(
        &mut self,
        document: Gc<'m, Document<'m>>,
        section: SectionPtr<'m>,
    ) -> Result<bool, String> {
        let Some(paragraph) = self.pick(section) else {
            return Ok(false);
        };
        check_text(paragraph.text.get())?;
        // It may be on a clipboard, or in another section, by now.
        let up = paragraph.section.get();
        match up.map(|section| section.document.get()) {
            Some(Some(up)) if !Gc::ptr_eq(up, document) => Err("a way up leads elsewhere".into()),
            Some(None) => Err("a section has no document".into()),
            _ => Ok(true),
        }
    }

    /// Puts a new text in place of the present one, unless another thread is faster.
    fn rewrite<'m>(&mut self, m: &'m Mutator, section: SectionPtr<'m>) -> bool {
        let Some(paragraph) = self.pick(section) else {
            return false;
        };
        let old = paragraph.text.get();
        let new = self.writer.text(m, old);
        if paragraph.text.compare_exchange(m, old, Some(new)).is_err() {
            return false;
        }
        // The texts that are too old to go back to become garbage here.
        let mut oldest = Some(new);
        for _ in 0..UNDO {
            oldest = oldest.and_then(|text| text.before.get());
        }
        if let Some(oldest) = oldest {
            oldest.before.set(m, None);
        }
        true
    }

    /// Goes back to the text before the present one.
    fn undo<'m>(&mut self, m: &'m Mutator, section: SectionPtr<'m>) -> bool {
        let Some(paragraph) = self.pick(section) else {
            return false;
        };
        let now = paragraph.text.get();
        let before = now.and_then(|text| text.before.get());
        before.is_some() && paragraph.text.compare_exchange(m, now, before).is_ok()
    }

    fn insert<'m>(
        &mut self,
        m: &'m Mutator,
        section: SectionPtr<'m>,
        paragraph: ParagraphPtr<'m>,
    ) -> bool {
        let mut paragraphs = section.paragraphs.write(m);
        let at = self.writer.rng.below(paragraphs.len() + 1);
        paragraphs.insert(at, paragraph);
        paragraph.section.set(m, section);
        true
    }

    fn remove<'m>(&mut self, m: &'m Mutator, section: SectionPtr<'m>) -> Option<ParagraphPtr<'m>> {
        let mut paragraphs = section.paragraphs.write(m);
        let len = paragraphs.len();
        let paragraph = (len > 0).then(|| paragraphs.remove(self.writer.rng.below(len)))?;
        paragraph.section.set(m, None);
        Some(paragraph)
    }

    fn cut<'m>(&mut self, m: &'m Mutator, section: SectionPtr<'m>) -> bool {
        if self.clipboard.enter(m).len() == CLIPBOARD {
            return false;
        }
        let Some(paragraph) = self.remove(m, section) else {
            return false;
        };
        self.clipboard.enter(m).push(paragraph);
        true
    }

    fn paste<'m>(&mut self, m: &'m Mutator, section: SectionPtr<'m>) -> bool {
        let paragraph = self.clipboard.enter(m).pop();
        paragraph.is_some_and(|paragraph| self.insert(m, section, paragraph))
    }

    fn set_bookmark<'m>(
        &mut self,
        m: &'m Mutator,
        document: Gc<'m, Document<'m>>,
        section: SectionPtr<'m>,
    ) -> bool {
        let Some(paragraph) = self.pick(section) else {
            return false;
        };
        let name = self.writer.rng.below(BOOKMARKS);
        let mut bookmarks = document.bookmarks.write(m);
        bookmarks.insert(name, paragraph.downgrade(m));
        true
    }

    /// Reads the paragraph under a bookmark, if it is still there.
    fn follow_bookmark<'m>(
        &mut self,
        m: &'m Mutator,
        document: Gc<'m, Document<'m>>,
    ) -> Result<bool, String> {
        let name = self.writer.rng.below(BOOKMARKS);
        let bookmark = document.bookmarks.read().get(&name).copied();
        let Some(paragraph) = bookmark.and_then(|weak| weak.upgrade(m)) else {
            return Ok(false);
        };
        check_text(paragraph.text.get())?;
        Ok(true)
    }
}

/// A text must be what was written.
fn check_text(text: Option<Gc<'_, Text<'_>>>) -> Result<(), String> {
    match text {
        None => Err("a paragraph has no text".to_owned()),
        Some(text) if checksum(&text.words) != text.sum => Err("a text has changed".to_owned()),
        Some(_) => Ok(()),
    }
}

/// Walks the whole document while nobody edits it. Gives the number of paragraphs.
fn check_document(document: Gc<'_, Document<'_>>) -> Result<u64, String> {
    if &*document.title != "A tour of the heap" {
        return Err(format!("the document's title is now '{}'", document.title));
    }
    let mut count = 0;
    for (number, section) in document.sections.iter().enumerate() {
        let up = section.document.get();
        if !up.is_some_and(|up| Gc::ptr_eq(up, document)) {
            return Err(format!("section {number} does not lead up to the document"));
        }
        let paragraphs = section.paragraphs.read();
        for paragraph in paragraphs.iter() {
            let up = paragraph.section.get();
            if !up.is_some_and(|up| Gc::ptr_eq(up, *section)) {
                return Err(format!("a paragraph does not lead up to section {number}"));
            }
            let mut text = paragraph.text.get();
            check_text(text)?;
            while let Some(before) = text {
                check_text(Some(before))?;
                text = before.before.get();
            }
        }
        count += paragraphs.len() as u64;
    }
    Ok(count)
}

fn summary(heap: &Heap, options: Options, report: &Report) {
    let edits = report.latency.count();
    let rate = edits as f64 / report.time.as_secs_f64();
    say(format_args!(
        "\n{edits} edits on {} threads: {rate:.0} a second",
        options.threads
    ));
    let counts = Edit::ALL.map(|edit| format!("{edit:?} {}", report.counts[edit as usize]));
    say(counts.join("  "));
    say(format_args!("  edit and safepoint {}", report.latency));
    say(report::collector(&heap.stats()));
    say(format_args!(
        "the document is whole: {} paragraphs, as counted",
        report.paragraphs
    ));
}
