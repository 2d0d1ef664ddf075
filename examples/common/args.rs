//! Command lines: `--name value` options with a range, and words. A mistake is an error that says
//! what was given and what is allowed; nothing is ignored.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::str::FromStr;

use super::report::say;

/// A command line that cannot be read. The program ends with status 2.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl UsageError {
    /// A command line that is wrong as a whole.
    pub(crate) fn new(what: &str) -> Self {
        Self(what.to_owned())
    }
}

impl Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for UsageError {}

/// The arguments that no call has taken yet.
#[derive(Debug)]
pub(crate) struct Args {
    options: Vec<(String, String)>,
    words: Vec<String>,
}

impl Args {
    /// Splits a command line (without the program's name) into options and words. Both
    /// `--name value` and `--name=value` are options; all that follows `--` is words.
    pub(crate) fn parse(given: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut args = Self {
            options: Vec::new(),
            words: Vec::new(),
        };
        let mut given = given.into_iter().map(|arg| {
            arg.into_string()
                .map_err(|arg| UsageError(format!("{arg:?} is not valid UTF-8")))
        });
        while let Some(arg) = given.next().transpose()? {
            if arg == "--" {
                for word in given.by_ref() {
                    args.words.push(word?);
                }
            } else if !arg.starts_with("--") {
                args.words.push(arg);
            } else if let Some((name, value)) = arg.split_once('=') {
                args.options.push((name.to_owned(), value.to_owned()));
            } else if let Some(value) = given.next().transpose()? {
                args.options.push((arg, value));
            } else {
                return Err(UsageError(format!("{arg} needs a value")));
            }
        }
        Ok(args)
    }

    /// Takes the number after `name`, or `default` when it was not given.
    pub(crate) fn number<T>(
        &mut self,
        name: &str,
        default: T,
        allowed: RangeInclusive<T>,
    ) -> Result<T, UsageError>
    where
        T: FromStr + PartialOrd + Display,
    {
        match self.text(name) {
            Some(value) => in_range(name, &value, &allowed),
            None => Ok(default),
        }
    }

    /// Takes the text after `name`, if it was given.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.options.iter().position(|(given, _)| given == name)?;
        Some(self.options.remove(at).1)
    }

    /// Takes the words, `count` of them. Options that nothing took are errors here, so this
    /// comes last.
    pub(crate) fn words(self, count: RangeInclusive<usize>) -> Result<Vec<String>, UsageError> {
        if let Some((name, _)) = self.options.first() {
            return Err(UsageError(format!(
                "{name} is not an option, or is given twice"
            )));
        }
        if !count.contains(&self.words.len()) {
            return Err(UsageError(match self.words.get(*count.end()) {
                Some(word) => format!("'{word}' is one argument too many"),
                None => "an argument is missing".to_owned(),
            }));
        }
        Ok(self.words)
    }
}

/// Reads `value` as a number in `allowed`; `name` is what the error calls it.
pub(crate) fn in_range<T>(
    name: &str,
    value: &str,
    allowed: &RangeInclusive<T>,
) -> Result<T, UsageError>
where
    T: FromStr + PartialOrd + Display,
{
    match value.parse() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => {
            let (low, high) = (allowed.start(), allowed.end());
            Err(UsageError(format!(
                "{name}: '{value}' is not a number from {low} to {high}"
            )))
        }
    }
}

/// The `main` of every program: reads the command line, runs `body`, and turns an error into
/// a line on stderr and an exit status (2 for a bad command line, 1 for the rest).
#[allow(clippy::print_stderr, reason = "a program talks to its user")]
pub(crate) fn main(usage: &str, body: impl FnOnce(Args) -> Result<(), Box<dyn Error>>) -> ExitCode {
    if std::env::args_os()
        .skip(1)
        .any(|arg| arg == "--help" || arg == "-h")
    {
        say(usage);
        return ExitCode::SUCCESS;
    }
    let done = Args::parse(std::env::args_os().skip(1))
        .map_err(Into::into)
        .and_then(body);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<UsageError>() => {
            eprintln!("error: {error}\n\n{usage}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  caused by: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
