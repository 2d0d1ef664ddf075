//! A tour of the library: several threads edit one document, a graph full of cycles, while the
//! collector runs beside them.
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
//! Bookmarks are `Weak`, so they do not keep a deleted paragraph. A thread's `Frame` holds what it
//! has cut and not yet pasted. One `Root` holds the document itself.
//!
//! With `--gs N` the editors are N Gs of a scheduler on those threads. Across an `.await` each of
//! them has its `Root` and its `Frame`, and it edits inside `with`.
//!
//! At the end the program walks the whole document. Every way down must have its way up, every text
//! must be what was written, and the number of paragraphs must match what the threads have added
//! and deleted.

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use greywave::{Frame, Gc, Heap, JoinError, Mutator, Root, Runtime, with, yield_now};

mod common;
#[path = "tour/document.rs"]
mod document;
use common::args::{self, Args};
use common::report::{self, Bytes, Latency, Nanos, say};
use common::rng::Rng;
use common::words::Words;
use document::{
    Document, ParagraphPtr, SectionPtr, Writer, check_document, check_text, write_document,
};

const USAGE: &str = "usage: tour [--threads N] [--gs N] [--seconds N] [--paragraphs N] [--seed N]
  --threads N     editing threads, 1 to 256 (default: one for each processor, at least 2)
  --gs N          editing Gs on these threads, up to 1000000; 0 (the default): each thread edits
  --seconds N     how long to edit, 1 to 86400 (default 6)
  --paragraphs N  in the document at the start, 1 to 10000000 (default 500000)
  --seed N        of the random edits (default 1)";

/// Texts that a paragraph can go back to.
const UNDO: usize = 1;
/// Paragraphs that a thread may have cut and not pasted.
const CLIPBOARD: usize = 32;
/// Names of bookmarks.
const BOOKMARKS: usize = 4096;

/// How to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) threads: usize,
    /// 0: each thread edits.
    pub(crate) gs: usize,
    pub(crate) time: Duration,
    pub(crate) paragraphs: usize,
    pub(crate) seed: u64,
}

/// What the editors did, all together.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) time: Duration,
    pub(crate) paragraphs: u64,
    pub(crate) times: Times,
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
        gs: args.number("--gs", 0, 0..=1_000_000)?,
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
    let document = write_document(heap, options.paragraphs, options.seed)?;
    say(&format!(
        "wrote {} paragraphs, {}",
        options.paragraphs,
        Bytes(heap.stats().heap_bytes)
    ));

    let progress = Arc::new(Progress::new());
    let start = Instant::now();
    let wait = || {
        watch(heap, start, options.time, &progress.edits, &mut say);
        // Relaxed: the flag is all that is shared.
        progress.stop.store(true, Ordering::Relaxed);
    };
    let editors = if options.gs == 0 {
        edit_on_threads(heap, &document, options, &progress, wait)?
    } else {
        edit_in_gs(heap, &document, options, &progress, wait)?
    };
    let time = start.elapsed();

    let mut counts = Counts::default();
    for editor in editors {
        for (sum, count) in counts.iter_mut().zip(editor?) {
            *sum += count;
        }
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
        times: progress.times().clone(),
        counts,
    })
}

/// How long things took, of all editors.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    /// An edit, with the safepoint after it or the section around it.
    pub(crate) edits: Latency,
    /// A G's wait for its turn after each edit.
    pub(crate) turns: Latency,
}

/// What editors share while they edit.
#[derive(Debug)]
struct Progress {
    stop: AtomicBool,
    edits: AtomicU64,
    times: Mutex<Times>,
}

impl Progress {
    fn new() -> Self {
        let [edits, turns] = [Latency::new(), Latency::new()];
        Self {
            stop: AtomicBool::new(false),
            edits: AtomicU64::new(0),
            times: Mutex::new(Times { edits, turns }),
        }
    }

    fn is_over(&self) -> bool {
        // Relaxed: the flag is all that is shared.
        self.stop.load(Ordering::Relaxed)
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        // Figures are whole after any panic.
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A G has done an edit, in a turn that it waited for.
    fn note_turn(&self, edit: Duration, turn: Option<Duration>) {
        // Relaxed: a count for people.
        self.edits.fetch_add(1, Ordering::Relaxed);
        let mut times = self.times();
        times.edits.record(edit);
        if let Some(turn) = turn {
            times.turns.record(turn);
        }
    }
}

/// How often one editor did what, or why it gave up.
type Done = Result<Counts, String>;

/// Each thread is an editor, until `wait` is over.
fn edit_on_threads(
    heap: &Heap,
    document: &Root<Document<'static>>,
    options: Options,
    progress: &Progress,
    wait: impl FnOnce(),
) -> Result<Vec<Done>, Box<dyn Error>> {
    let words = Words::shared(options.seed);
    let edit = |number| {
        let mut m = heap.attach().map_err(|error| error.to_string())?;
        let editor = Editor::new(&m, document.clone(), options.seed, number, words.clone());
        Editor::on_thread(&mut m, editor, progress)
    };
    let ended = thread::scope(|scope| {
        let edit = &edit;
        let threads: Vec<_> = (0..options.threads)
            .map(|number| scope.spawn(move || edit(number)))
            .collect();
        wait();
        // All of them must have ended before this returns, whatever the first one says.
        let ended: Vec<_> = threads
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        ended.into_iter().collect::<Result<Vec<_>, _>>()
    });
    ended.map_err(|_| "an editing thread panicked".into())
}

/// Each G is an editor, until `wait` is over.
fn edit_in_gs(
    heap: &Heap,
    document: &Root<Document<'static>>,
    options: Options,
    progress: &Arc<Progress>,
    wait: impl FnOnce(),
) -> Result<Vec<Done>, Box<dyn Error>> {
    let runtime = Runtime::builder(heap).procs(options.threads).build()?;
    let words = Words::shared(options.seed);
    let editors: Vec<_> = (0..options.gs)
        .map(|number| {
            let (document, words, progress) = (document.clone(), words.clone(), progress.clone());
            runtime.go(async move {
                let new = |m: &mut Mutator| Editor::new(m, document, options.seed, number, words);
                with(new).in_g(progress).await
            })
        })
        .collect();
    wait();
    let done = runtime.block_on(async {
        let mut done = Vec::with_capacity(editors.len());
        for editor in editors {
            done.push(editor.await?);
        }
        Ok::<_, JoinError>(done)
    })??;
    Ok(done)
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

/// Who edits the document.
struct Editor {
    document: Root<Document<'static>>,
    clipboard: Frame<Vec<ParagraphPtr<'static>>>,
    writer: Writer,
    counts: Counts,
}

impl Editor {
    fn new(
        m: &Mutator,
        document: Root<Document<'static>>,
        seed: u64,
        number: usize,
        words: Arc<Words>,
    ) -> Self {
        Self {
            document,
            clipboard: Frame::new(m, Vec::new()),
            writer: Writer::new(seed, 1 + number as u64, words),
            counts: Counts::default(),
        }
    }

    fn on_thread(m: &mut Mutator, mut this: Self, progress: &Progress) -> Result<Counts, String> {
        let mut latency = Latency::new();
        let mut before = Instant::now();
        while !progress.is_over() {
            let edit = Edit::choose(&mut this.writer.rng);
            this.edit(m, edit)?;
            m.safepoint();
            // The next one starts where this one ended: so a pause counts as part of an edit.
            let now = Instant::now();
            latency.record(now - before);
            before = now;
            if latency.count().is_multiple_of(256) {
                // Relaxed: a count for people.
                progress.edits.fetch_add(256, Ordering::Relaxed);
            }
        }
        while this.edit(m, Edit::Paste)? {}
        progress.times().edits.add(&latency);
        Ok(this.counts)
    }

    /// One edit a turn.
    async fn in_g(mut self, progress: Arc<Progress>) -> Result<Counts, String> {
        let mut turn = None;
        while !progress.is_over() {
            let before = Instant::now();
            with(|m| {
                let edit = Edit::choose(&mut self.writer.rng);
                self.edit(m, edit)
            })?;
            let after = Instant::now();
            progress.note_turn(after - before, turn);
            yield_now().await;
            turn = Some(after.elapsed());
        }
        with(|m| {
            while self.edit(m, Edit::Paste)? {}
            Ok(self.counts)
        })
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

fn summary(heap: &Heap, options: Options, report: &Report) {
    let edits = report.times.edits.count();
    let rate = edits as f64 / report.time.as_secs_f64();
    let threads = options.threads;
    let editors = match options.gs {
        0 => format!("{threads} threads"),
        gs => format!("{gs} Gs on {threads} threads"),
    };
    say(format_args!(
        "\n{edits} edits by {editors}: {rate:.0} a second"
    ));
    let counts = Edit::ALL.map(|edit| format!("{edit:?} {}", report.counts[edit as usize]));
    say(counts.join("  "));
    if options.gs == 0 {
        say(format_args!("  edit and safepoint {}", report.times.edits));
    } else {
        say(format_args!("  edit in a section  {}", report.times.edits));
        say(format_args!("  wait for a turn    {}", report.times.turns));
    }
    say(report::collector(&heap.stats()));
    say(format_args!(
        "the document is whole: {} paragraphs, as counted",
        report.paragraphs
    ));
}
