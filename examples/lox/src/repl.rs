//! The prompt.

use std::path::PathBuf;

use lox::{Dialect, Lox};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

/// Where the history is kept, if there is a home for it.
fn history_file() -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    Some(PathBuf::from(home).join(".lox_history"))
}

/// Reads lines and runs each until the input ends; the exit code.
pub(crate) fn run(lox: &mut Lox, dialect: Dialect) -> u8 {
    let mut editor = match DefaultEditor::new() {
        Ok(editor) => editor,
        Err(error) => {
            eprintln!("{error}");
            return 74;
        }
    };
    let history = history_file();
    if let Some(path) = &history {
        // There is none the first time.
        let _ = editor.load_history(path);
    }
    let code = loop {
        match editor.readline("> ") {
            Ok(line) => {
                if !line.trim().is_empty() {
                    let _ = editor.add_history_entry(line.as_str());
                }
                if let Err(failure) = lox.run(&line) {
                    eprint!("{}", failure.report(dialect));
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break 0,
            Err(error) => {
                eprintln!("{error}");
                break 74;
            }
        }
    };
    if let Some(path) = &history
        && let Err(error) = editor.save_history(path)
    {
        eprintln!("the history could not be saved: {error}");
    }
    code
}
