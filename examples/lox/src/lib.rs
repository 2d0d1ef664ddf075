//! The Lox language on greywave. The page `greywave::guide::virtual_machines` follows it step by
//! step.

mod compile;
mod dialect;
mod error;
mod native;
mod object;
mod op;
mod proto;
mod realm;
mod scan;
mod shape;
mod strings;
mod thread;
mod value;
mod vm;

use std::sync::{Arc, Mutex};

use greywave::{AttachError, Heap, Mutator};

pub use dialect::Dialect;
pub use error::{CompileError, Failure, Mistake, RuntimeError, TraceLine};
use realm::Realm;
pub use thread::Output;
use thread::Shared;
use vm::Vm;

/// An interpreter: a program's world in a heap, and the thread that runs it.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// let output = Arc::new(Mutex::new(Vec::new()));
/// let mut lox = lox::Lox::new(&greywave::Heap::new(), lox::Dialect::Book, output.clone())?;
/// lox.run("print 1 + 2;").expect("a right program");
/// assert_eq!(*output.lock().expect("no panic"), b"3\n");
/// # Ok::<(), greywave::AttachError>(())
/// ```
#[derive(Debug)]
pub struct Lox {
    vm: Vm,
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    mutator: Option<Mutator>,
}

impl Lox {
    /// An interpreter on this thread, which prints to `output`.
    ///
    /// # Errors
    /// If the thread has a mutator already.
    pub fn new(heap: &Heap, dialect: Dialect, output: Output) -> Result<Self, AttachError> {
        let m = heap.attach()?;
        let realm = m.root(Realm::new(&m));
        let shared = Shared::new(heap.clone(), realm, dialect, output);
        Ok(Self {
            vm: Vm::new(&m, shared.clone()),
            shared,
            mutator: Some(m),
        })
    }

    /// Standard output, as an interpreter's output. Flush it before the process ends.
    pub fn stdout() -> Output {
        Arc::new(Mutex::new(std::io::BufWriter::new(std::io::stdout())))
    }

    /// Runs a script. Global variables stay for the next one.
    ///
    /// # Errors
    /// What the compiler found, or what stopped the program.
    pub fn run(&mut self, source: &str) -> Result<(), Failure> {
        let script = compile::compile(source, self.shared.dialect).map_err(Failure::Compile)?;
        let Some(m) = &mut self.mutator else {
            return Ok(());
        };
        self.vm.prepare(m, &script);
        drop(script);
        let result = self.vm.run(m);
        self.flush();
        result.map_err(|(error, trace)| Failure::Runtime(error, trace))
    }

    fn flush(&self) {
        if let Ok(mut output) = self.shared.output.lock() {
            // A failure shows at the next print.
            let _ = output.flush();
        }
    }
}

impl Drop for Lox {
    /// Stops the program's threads and waits for them.
    fn drop(&mut self) {
        self.mutator = None;
        self.shared.stop();
        self.flush();
    }
}
