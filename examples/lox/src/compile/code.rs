//! The code of one function while it grows: registers, jumps, and what is folded into the
//! instruction before.

use std::collections::HashMap;
use std::rc::Rc;

use super::Compiler;
use super::scope::Local;
use crate::error::Mistake;
use crate::op::{Op, Reg};
use crate::proto::{Capture, Constant, Proto};

/// Registers of a frame. 256 locals and as many arguments of a call always fit.
pub(crate) const MAX_REGISTERS: usize = 1024;
/// Constants of a function, as in the book.
const MAX_CONSTANTS: usize = 256;

/// What a function is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FunctionKind {
    Script,
    Function,
    Method,
    Initializer,
}

/// A function being compiled.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) kind: FunctionKind,
    pub(super) locals: Vec<Local>,
    pub(super) captures: Vec<Capture>,
    pub(super) scope_depth: u32,
    /// Registers in use: locals, then temporaries.
    pub(super) depth: usize,
    /// The last instruction that a jump leads to: what comes before it is not touched any more.
    label: usize,
    constants: HashMap<ConstantKey, u16>,
    global_index: HashMap<Rc<str>, u16>,
    pub(super) proto: Proto,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum ConstantKey {
    Number(u64),
    Text(Rc<str>),
}

impl Function {
    pub(super) fn new(kind: FunctionKind, name: Option<Rc<str>>) -> Self {
        Self {
            kind,
            locals: Vec::new(),
            captures: Vec::new(),
            scope_depth: 0,
            depth: 0,
            label: 0,
            constants: HashMap::new(),
            global_index: HashMap::new(),
            proto: Proto {
                name,
                ..Proto::default()
            },
        }
    }

    /// The last instruction, if no jump leads behind it.
    fn last(&mut self) -> Option<&mut Op> {
        if self.label == self.proto.code.len() {
            return None;
        }
        self.proto.code.last_mut()
    }

    fn drop_last(&mut self) {
        self.proto.code.pop();
        self.proto.lines.pop();
    }
}

/// A jump whose target is not known yet.
#[derive(Debug)]
#[must_use = "the jump goes nowhere otherwise"]
pub(super) struct PendingJump(usize);

impl Compiler<'_> {
    // ---- instructions ---------------------------------------------------------------------------

    pub(super) fn emit(&mut self, op: Op) {
        let line = self.place.previous.line;
        let proto = &mut self.function().proto;
        proto.code.push(op);
        proto.lines.push(line);
    }

    pub(super) fn here(&mut self) -> usize {
        self.function().proto.code.len()
    }

    /// Takes the next register.
    pub(super) fn push(&mut self) -> Reg {
        let function = self.function();
        if function.depth == MAX_REGISTERS {
            self.error(Mistake::TooDeep);
            return 0;
        }
        function.depth += 1;
        (function.depth - 1) as Reg
    }

    /// Gives the last register back.
    pub(super) fn pop(&mut self) {
        let function = self.function();
        function.depth = function.depth.saturating_sub(1);
    }

    /// The register taken last.
    pub(super) fn top(&mut self) -> Reg {
        self.function().depth.saturating_sub(1) as Reg
    }

    // ---- operands -------------------------------------------------------------------------------

    /// Gives the last register back and tells where its value is: there, or in the local that it
    /// was copied from by the instruction before. For an operand that is read by the very next
    /// instruction.
    pub(super) fn take_operand(&mut self) -> Reg {
        let top = self.top();
        let function = self.function();
        let copied = match function.last() {
            Some(&mut Op::Move { dst, src }) if dst == top => Some(src),
            _ => None,
        };
        if copied.is_some() {
            function.drop_last();
        }
        self.pop();
        copied.unwrap_or(top)
    }

    /// As [`take_operand`](Self::take_operand), for an operand that is read after more code: only
    /// if it is in a local that is never assigned to.
    pub(super) fn take_stable_operand(&mut self) -> Option<Reg> {
        let top = self.top();
        let src = match self.function().last() {
            Some(&mut Op::Move { dst, src }) if dst == top => src,
            _ => return None,
        };
        self.is_stable(src).then(|| self.take_operand())
    }

    /// If the last register was just given a whole number that an instruction can hold, gives both
    /// back.
    pub(super) fn take_small_number(&mut self) -> Option<i16> {
        let top = self.top();
        let function = self.function();
        let index = match function.last() {
            Some(&mut Op::Constant { dst, index }) if dst == top => index,
            _ => return None,
        };
        let Some(&Constant::Number(number)) = function.proto.constants.get(usize::from(index))
        else {
            return None;
        };
        let small = number as i16;
        if f64::from(small) != number || (small == 0 && number.is_sign_negative()) {
            return None;
        }
        function.drop_last();
        self.pop();
        Some(small)
    }

    /// Makes `local` hold what is in the last register, which stays in use and holds it as well.
    pub(super) fn store_local(&mut self, local: Reg) {
        let top = self.top();
        let retargeted = match self.function().last().and_then(Op::result_mut) {
            Some(dst) if *dst == top => {
                *dst = local;
                true
            }
            _ => false,
        };
        if retargeted {
            self.emit(Op::Move {
                dst: top,
                src: local,
            });
        } else {
            self.emit(Op::Move {
                dst: local,
                src: top,
            });
        }
    }

    /// Takes back the call whose result is in `at`, if it was the last instruction.
    pub(super) fn take_call(&mut self, at: Reg) -> Option<Op> {
        let function = self.function();
        let call = match function.last() {
            Some(&mut op @ (Op::Call { at: to, .. } | Op::Invoke { at: to, .. })) if to == at => op,
            _ => return None,
        };
        function.drop_last();
        Some(call)
    }

    /// Gives back the last register, whose value nobody wants, and the copy that was made for it.
    pub(super) fn discard(&mut self) {
        let top = self.top();
        let function = self.function();
        if matches!(function.last(), Some(&mut Op::Move { dst, .. }) if dst == top) {
            function.drop_last();
        }
        self.pop();
    }

    // ---- jumps ----------------------------------------------------------------------------------

    pub(super) fn emit_jump(&mut self, op: Op) -> PendingJump {
        self.emit(op);
        PendingJump(self.here() - 1)
    }

    /// Gives back the last register and jumps if it holds `false` or `nil`.
    pub(super) fn emit_jump_unless(&mut self) -> PendingJump {
        let top = self.top();
        let function = self.function();
        let fused = match function.last().map(|op| *op) {
            Some(Op::Not { dst, src }) if dst == top => Some(Op::JumpIfTrue { src, by: 0 }),
            Some(op) if result_of(op) == Some(top) => op.to_unless(),
            _ => None,
        };
        if let Some(op) = fused {
            function.drop_last();
            self.pop();
            return self.emit_jump(op);
        }
        let src = self.take_operand();
        self.emit_jump(Op::JumpIfFalse { src, by: 0 })
    }

    /// Lets the jump lead here.
    pub(super) fn land(&mut self, jump: PendingJump) {
        let here = self.here();
        let Ok(distance) = i16::try_from(here - jump.0 - 1) else {
            self.error(Mistake::JumpTooLarge);
            return;
        };
        let function = self.function();
        function.label = here;
        if let Some(by) = function.proto.code[jump.0].distance_mut() {
            *by = distance;
        }
    }

    /// A place to jump back to.
    pub(super) fn start_loop(&mut self) -> usize {
        let here = self.here();
        self.function().label = here;
        here
    }

    pub(super) fn emit_loop(&mut self, start: usize) {
        let here = self.here();
        match i16::try_from(here + 1 - start) {
            Ok(distance) => self.emit(Op::Loop { by: -distance }),
            Err(_) => self.error(Mistake::LoopTooLarge),
        }
    }

    /// Forgets the code from `start` on.
    pub(super) fn rewind_code(&mut self, start: usize) {
        let function = self.function();
        function.proto.code.truncate(start);
        function.proto.lines.truncate(start);
        function.label = function.label.min(start);
    }

    // ---- tables ---------------------------------------------------------------------------------

    fn constant(&mut self, key: ConstantKey, constant: Constant) -> u16 {
        let function = self.function();
        if let Some(&index) = function.constants.get(&key) {
            return index;
        }
        let index = function.proto.constants.len();
        if index == MAX_CONSTANTS {
            self.error(Mistake::TooManyConstants);
            return 0;
        }
        function.constants.insert(key, index as u16);
        function.proto.constants.push(constant);
        index as u16
    }

    pub(super) fn number_constant(&mut self, number: f64) -> u16 {
        self.constant(
            ConstantKey::Number(number.to_bits()),
            Constant::Number(number),
        )
    }

    pub(super) fn text_constant(&mut self, text: &str) -> u16 {
        let text: Rc<str> = text.into();
        self.constant(ConstantKey::Text(text.clone()), Constant::Text(text))
    }

    pub(super) fn global(&mut self, name: &Rc<str>) -> u16 {
        if let Some(&index) = self.function().global_index.get(name) {
            return index;
        }
        let len = self.function().proto.globals.len();
        let index = self.table_index(len);
        let function = self.function();
        function.global_index.insert(name.clone(), index);
        function.proto.globals.push(name.clone());
        index
    }

    pub(super) fn site(&mut self, name: &Rc<str>) -> u16 {
        let len = self.function().proto.sites.len();
        let index = self.table_index(len);
        self.function().proto.sites.push(name.clone());
        index
    }

    pub(super) fn name(&mut self, name: &Rc<str>) -> u16 {
        let len = self.function().proto.names.len();
        let index = self.table_index(len);
        self.function().proto.names.push(name.clone());
        index
    }

    pub(super) fn add_function(&mut self, proto: Proto) -> u16 {
        let len = self.function().proto.functions.len();
        let index = self.table_index(len);
        self.function().proto.functions.push(proto);
        index
    }

    fn table_index(&mut self, len: usize) -> u16 {
        u16::try_from(len).unwrap_or_else(|_| {
            self.error(Mistake::FunctionTooLarge);
            0
        })
    }

    // ---- the whole ------------------------------------------------------------------------------

    /// Register 0: the callee, or `this`.
    pub(super) fn reserve_callee(&mut self) {
        self.push();
    }

    /// Ends the innermost function with the return that needs no statement.
    pub(super) fn finish_function(&mut self) -> Proto {
        self.emit_return();
        let kind = self.function().kind;
        let done = std::mem::replace(self.function(), Function::new(kind, None));
        let mut proto = done.proto;
        proto.captures = done.captures;
        proto
    }

    /// `return;`
    pub(super) fn emit_return(&mut self) {
        let src = self.push();
        if self.function().kind == FunctionKind::Initializer {
            self.emit(Op::Move { dst: src, src: 0 });
        } else {
            self.emit(Op::Nil { dst: src });
        }
        let src = self.take_operand();
        self.emit(Op::Return { src });
    }
}

fn result_of(mut op: Op) -> Option<Reg> {
    op.result_mut().map(|reg| *reg)
}
