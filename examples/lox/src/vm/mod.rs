//! A virtual machine: one thread's operand stack, and the loop around the interpreter.

mod call;
mod ops;
mod run;

use std::sync::Arc;

use greywave::{Frame, Gc, GcArray, Mutator, Root, Trace};

use crate::compile::MAX_REGISTERS;
use crate::error::{RuntimeError, TraceLine};
use crate::object::{Closure, Method, Text};
use crate::op::Op;
use crate::proto::Proto;
use crate::thread::{Shared, Wait};
use crate::value::Value;

/// Calls inside each other.
pub(crate) const MAX_FRAMES: usize = 4096;

/// A call that waits for another to return, or the one that is running.
#[derive(Clone, Copy, Debug, Trace)]
pub(crate) struct CallFrame<'gc> {
    pub(crate) closure: Gc<'gc, Closure<'gc>>,
    /// The next instruction.
    pub(crate) ip: u32,
    /// Where its registers begin.
    pub(crate) base: u32,
}

/// A class whose declaration is running.
#[derive(Debug, Trace)]
pub(crate) struct ClassDraft<'gc> {
    pub(crate) name: Gc<'gc, Text>,
    pub(crate) room: u32,
    pub(crate) methods: Vec<Method<'gc>>,
}

/// Everything that a running program holds outside the heap: the content of a greywave `Frame`.
#[derive(Debug, Default, Trace)]
pub(crate) struct Stack<'gc> {
    /// The operand stack.
    pub(crate) values: Vec<Value<'gc>>,
    pub(crate) frames: Vec<CallFrame<'gc>>,
    /// The call that is running, while the interpreter is not.
    pub(crate) current: Option<CallFrame<'gc>>,
    pub(crate) classes: Vec<ClassDraft<'gc>>,
    /// Values above this have been cleared.
    high: usize,
}

/// Why the interpreter stopped.
#[derive(Debug)]
pub(crate) enum Exit {
    /// The program is at its end.
    Done,
    /// The collector asks for a safepoint.
    Safepoint,
    /// A native function waits.
    Wait(Wait),
    /// The program failed.
    Error(Box<RuntimeError>),
}

/// A virtual machine.
#[derive(Debug)]
pub(crate) struct Vm {
    stack: Frame<Stack<'static>>,
    shared: Arc<Shared>,
}

impl Vm {
    pub(crate) fn new(m: &Mutator, shared: Arc<Shared>) -> Self {
        Self {
            stack: Frame::new(m, Stack::default()),
            shared,
        }
    }

    /// Makes ready to run a script.
    pub(crate) fn prepare(&mut self, m: &Mutator, script: &Proto) {
        let realm = self.shared.realm.get(m);
        let closure = realm.as_ref().load_closure(m, script);
        self.stack.enter(m).begin(closure, &[]);
    }

    /// Makes ready to call `call[0]` with the other values as arguments.
    pub(crate) fn prepare_call(
        &mut self,
        m: &Mutator,
        call: &Root<GcArray<(), Value<'static>>>,
        line: u32,
    ) {
        let call = call.get(m);
        let count = (call.items().len() - 1) as u8;
        let stub = Proto {
            name: Some("spawn".into()),
            code: vec![Op::Call { at: 1, count }, Op::Return { src: 1 }],
            lines: vec![line; 2],
            ..Proto::default()
        };
        let realm = self.shared.realm.get(m);
        let closure = realm.as_ref().load_closure(m, &stub);
        self.stack.enter(m).begin(closure, call.items());
    }

    /// What the program returned.
    pub(crate) fn result<'m>(&mut self, m: &'m Mutator) -> Value<'m> {
        self.stack
            .enter(m)
            .values
            .first()
            .copied()
            .unwrap_or(Value::NIL)
    }

    /// Runs the program to its end.
    pub(crate) fn run(&mut self, m: &mut Mutator) -> Result<(), (RuntimeError, Vec<TraceLine>)> {
        loop {
            let exit = run::run(m, &mut self.stack.enter(m), &self.shared);
            match exit {
                Exit::Done => return Ok(()),
                Exit::Safepoint => {
                    self.stack.enter(m).clear_above();
                    m.safepoint();
                }
                Exit::Wait(wait) => m.blocking(|| wait.wait()),
                Exit::Error(error) => {
                    let trace = self.stack.enter(m).unwind();
                    return Err((*error, trace));
                }
            }
            if self.shared.is_stopping() {
                let trace = self.stack.enter(m).unwind();
                return Err((RuntimeError::Stopped, trace));
            }
        }
    }
}

impl<'m> Stack<'m> {
    /// A stack on which `closure` is about to run, with `values` in the registers from 1 on.
    fn begin(&mut self, closure: Gc<'m, Closure<'m>>, values: &[Value<'m>]) {
        self.unwind();
        self.values.clear();
        self.values.push(Value::closure(closure));
        self.values.extend_from_slice(values);
        self.current = Some(CallFrame {
            closure,
            ip: 0,
            base: 0,
        });
    }

    /// Clears what calls that have returned left behind, so that it keeps nothing alive.
    fn clear_above(&mut self) {
        let Some(current) = self.current else {
            return;
        };
        let live = current.base as usize + MAX_REGISTERS;
        let len = self.values.len();
        if live < self.high.min(len) {
            let high = self.high.min(len);
            self.values[live..high].fill(Value::NIL);
        }
        self.high = live;
    }

    /// Ends all calls; where they were.
    fn unwind(&mut self) -> Vec<TraceLine> {
        let current = self.current.take();
        let frames = current.into_iter().chain(self.frames.drain(..).rev());
        let lines: Vec<_> = frames
            .map(|frame| {
                let function = frame.closure.header();
                // The instruction that is being executed is the one before the next.
                let at = (frame.ip as usize).saturating_sub(1);
                TraceLine {
                    line: function.lines.get(at).copied().unwrap_or(0),
                    function: function.name.map(crate::strings::text_of),
                }
            })
            .collect();
        self.classes.clear();
        lines
    }
}

/// The registers from `base` on; the stack grows to have them.
#[inline(always)]
pub(crate) fn window<'s, 'm>(
    values: &'s mut Vec<Value<'m>>,
    base: usize,
) -> &'s mut [Value<'m>; MAX_REGISTERS] {
    let end = base + MAX_REGISTERS;
    if values.len() < end {
        grow(values, end);
    }
    match values[base..].first_chunk_mut() {
        Some(window) => window,
        // `grow` has seen to it.
        None => unreachable!("the stack has room for a window"),
    }
}

#[cold]
#[inline(never)]
fn grow(values: &mut Vec<Value<'_>>, end: usize) {
    let len = (end + 4 * MAX_REGISTERS).max(values.len() * 2);
    values.resize(len, Value::NIL);
}
