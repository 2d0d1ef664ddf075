use greywave::Trace;

#[derive(Trace)]
#[trace(skip)]
struct SkipOnType;

#[derive(Trace)]
#[trace(no_drop, bound = "")]
struct Unknown;

#[derive(Trace)]
#[trace]
struct Bare;

#[derive(Trace)]
#[trace()]
struct Empty;

#[derive(Trace)]
#[trace(bound = "T Trace")]
struct Malformed<T>(T);

#[derive(Trace)]
#[trace(bound = 3)]
struct NotText;

#[derive(Trace)]
#[trace(crate = "greywave")]
struct NotAPath;

#[derive(Trace)]
#[trace(bound = "", bound = "")]
struct Fields {
    #[trace(skip, skip)]
    twice: u8,
    #[trace(skip)]
    #[trace(skip)]
    twice_again: u8,
    #[trace(bound = "")]
    of_the_type: u8,
    #[trace(ignore)]
    unknown: u8,
    #[trace(skip = "yes")]
    valued: u8,
}

#[derive(Trace)]
enum Variant {
    #[trace(skip)]
    Skipped(u8),
}

fn main() {}
