//! The document: its parts, how it is written, and a check that it is complete.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use greywave::{Gc, GcCell, GcLock, GcOnce, Heap, Mutator, Root, Trace, Weak};

use super::common::rng::Rng;
use super::common::words::{Words, checksum};

/// Paragraphs in a section, at the start.
const SECTION: usize = 128;

/// The whole document.
#[derive(Trace)]
pub(crate) struct Document<'gc> {
    pub(crate) title: Gc<'gc, str>,
    pub(crate) sections: Gc<'gc, [SectionPtr<'gc>]>,
    pub(crate) bookmarks: GcLock<HashMap<usize, Weak<'gc, Paragraph<'gc>>>>,
}

/// A part of the document, which always stays where it is.
#[derive(Trace)]
pub(crate) struct Section<'gc> {
    pub(crate) document: GcOnce<'gc, Document<'gc>>,
    pub(crate) paragraphs: GcLock<Vec<ParagraphPtr<'gc>>>,
}

/// What is added, edited, moved and deleted.
#[derive(Trace)]
pub(crate) struct Paragraph<'gc> {
    /// None while it is on a clipboard, and once it is deleted.
    pub(crate) section: GcCell<'gc, Section<'gc>>,
    pub(crate) text: GcCell<'gc, Text<'gc>>,
}

pub(crate) type SectionPtr<'gc> = Gc<'gc, Section<'gc>>;
pub(crate) type ParagraphPtr<'gc> = Gc<'gc, Paragraph<'gc>>;

/// One state of a paragraph. It never changes, but forgets the states before it.
#[derive(Trace)]
pub(crate) struct Text<'gc> {
    pub(crate) words: Gc<'gc, str>,
    pub(crate) sum: u64,
    pub(crate) before: GcCell<'gc, Text<'gc>>,
}

/// Writes a document of so many paragraphs.
pub(crate) fn write_document(
    heap: &Heap,
    paragraphs: usize,
    seed: u64,
) -> Result<Root<Document<'static>>, Box<dyn Error>> {
    let mut m = heap.attach()?;
    let sections = paragraphs.div_ceil(SECTION);
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

    let mut writer = Writer::new(seed, 0, Words::shared(seed));
    for number in 0..paragraphs {
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
pub(crate) struct Writer {
    pub(crate) rng: Rng,
    words: Arc<Words>,
}

impl Writer {
    /// With random numbers of its own for each `(seed, stream)`.
    pub(crate) fn new(seed: u64, stream: u64, words: Arc<Words>) -> Self {
        let rng = Rng::new(seed, stream);
        Self { rng, words }
    }

    pub(crate) fn text<'m>(
        &mut self,
        m: &'m Mutator,
        before: Option<Gc<'m, Text<'m>>>,
    ) -> Gc<'m, Text<'m>> {
        let words = self.words.next(&mut self.rng);
        let (words, sum) = (m.alloc_str(words), checksum(words));
        let before = GcCell::new(before);
        m.alloc(Text { words, sum, before })
    }

    pub(crate) fn paragraph<'m>(
        &mut self,
        m: &'m Mutator,
        section: SectionPtr<'m>,
    ) -> ParagraphPtr<'m> {
        let section = GcCell::new(Some(section));
        let text = GcCell::new(Some(self.text(m, None)));
        m.alloc(Paragraph { section, text })
    }
}

/// A text must be what was written.
pub(crate) fn check_text(text: Option<Gc<'_, Text<'_>>>) -> Result<(), String> {
    match text {
        None => Err("a paragraph has no text".to_owned()),
        Some(text) if checksum(&text.words) != text.sum => Err("a text has changed".to_owned()),
        Some(_) => Ok(()),
    }
}

/// Walks the whole document while nobody edits it. Gives the number of paragraphs.
pub(crate) fn check_document(document: Gc<'_, Document<'_>>) -> Result<u64, String> {
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
