//! Runs a script on the VM of the `loxcraft` crate.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{BufWriter, Write};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: loxcraft SCRIPT")?;
    let source = std::fs::read_to_string(path)?;
    let mut output = BufWriter::new(std::io::stdout().lock());
    let result = loxcraft::vm::VM::default().run(&source, &mut output);
    output.flush()?;
    match result {
        Ok(()) => Ok(()),
        Err(errors) => Err(errors
            .first()
            .map_or_else(String::new, |e| e.0.to_string())
            .into()),
    }
}
