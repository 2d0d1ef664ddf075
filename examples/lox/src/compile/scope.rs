//! Local and captured variables.
//!
//! A local lives in a register, on the operand stack. A closure that captures it takes a copy of
//! the value if the variable is never assigned to after its declaration. Otherwise the variable is
//! *boxed*: it lives in a box on the heap from its declaration on, the register holds the box, and
//! closures share it. (An upvalue that stays on the stack until its function returns could not be
//! reached by a closure that another thread calls.)

use std::rc::Rc;

use super::Compiler;
use crate::error::Mistake;
use crate::op::{Op, Reg};
use crate::proto::Capture;

/// Locals of a function, register 0 included, as in the book.
const MAX_LOCALS: usize = 256;
/// Captured variables of a function.
const MAX_CAPTURES: usize = 256;

/// A local variable.
#[derive(Clone, Debug)]
pub(super) struct Local {
    name: Rc<str>,
    /// The scope it belongs to; `None` until it is initialized.
    depth: Option<u32>,
    register: Reg,
    /// Its number among all locals of the source.
    number: u32,
    boxed: bool,
}

/// A variable that a name leads to.
#[derive(Clone, Debug)]
enum Variable {
    Local {
        register: Reg,
        boxed: bool,
        number: u32,
    },
    Captured {
        index: u16,
        boxed: bool,
        number: u32,
    },
    Global(u16),
}

impl Compiler<'_> {
    pub(super) fn begin_scope(&mut self) {
        self.function().scope_depth += 1;
    }

    pub(super) fn end_scope(&mut self) {
        let function = self.function();
        function.scope_depth -= 1;
        let depth = function.scope_depth;
        while function
            .locals
            .last()
            .is_some_and(|local| local.depth.is_none_or(|d| d > depth))
        {
            function.locals.pop();
            function.depth -= 1;
        }
    }

    pub(super) fn is_global_scope(&mut self) -> bool {
        self.function().scope_depth == 0
    }

    /// Declares a local in the register that is taken next. `late`: closures that capture it are
    /// made before it gets its value, as with the name of a function.
    pub(super) fn declare_local(&mut self, name: &Rc<str>, late: bool) {
        let number = self.declared;
        self.declared += 1;
        let captured = self.facts.captured.contains(&number);
        let boxed = captured && (late || self.facts.assigned.contains(&number));
        let function = self.function();
        let depth = function.scope_depth;
        let clash = function
            .locals
            .iter()
            .rev()
            .take_while(|local| local.depth.is_none_or(|d| d == depth))
            .any(|local| local.name == *name && !name.is_empty());
        let full = function.locals.len() == MAX_LOCALS;
        let register = function.depth as Reg;
        function.locals.push(Local {
            name: name.clone(),
            depth: None,
            register,
            number,
            boxed,
        });
        if clash {
            self.error(Mistake::AlreadyDefined(name.to_string()));
        }
        if full {
            self.error(Mistake::TooManyLocals);
        }
    }

    /// The local declared last may be used from here on.
    pub(super) fn define_local(&mut self) {
        let function = self.function();
        let depth = function.scope_depth;
        if let Some(local) = function.locals.last_mut() {
            local.depth = Some(depth);
        }
    }

    /// The register of the local declared last, and whether it holds a box.
    pub(super) fn last_local(&mut self) -> (Reg, bool) {
        self.function()
            .locals
            .last()
            .map_or((0, false), |local| (local.register, local.boxed))
    }

    /// Puts the value of the local declared last into its box, if it has one.
    pub(super) fn box_last_local(&mut self) {
        if let (reg, true) = self.last_local() {
            self.emit(Op::Box { reg });
        }
    }

    /// The boxed locals of the function.
    pub(super) fn boxed_registers(&mut self) -> Vec<Reg> {
        let locals = &self.function().locals;
        locals
            .iter()
            .filter(|local| local.boxed)
            .map(|local| local.register)
            .collect()
    }

    /// Whether the value in `register` stays the same as long as the register is in use.
    pub(super) fn is_stable(&mut self, register: Reg) -> bool {
        let local = self
            .function()
            .locals
            .iter()
            .find(|local| local.register == register)
            .map(|local| (local.number, local.boxed));
        local.is_some_and(|(number, boxed)| !boxed && !self.facts.assigned.contains(&number))
    }

    // ---- names ----------------------------------------------------------------------------------

    fn resolve(&mut self, name: &Rc<str>) -> Variable {
        let innermost = self.functions.len() - 1;
        if let Some(local) = self.find_local(innermost, name) {
            return Variable::Local {
                register: local.register,
                boxed: local.boxed,
                number: local.number,
            };
        }
        match self.capture(innermost, name) {
            Some((index, boxed, number)) => Variable::Captured {
                index,
                boxed,
                number,
            },
            None => Variable::Global(self.global(name)),
        }
    }

    fn find_local(&mut self, function: usize, name: &Rc<str>) -> Option<Local> {
        let locals = &self.functions[function].locals;
        let local = locals.iter().rev().find(|l| l.name == *name)?.clone();
        if local.depth.is_none() {
            self.error(Mistake::OwnInitializer(name.to_string()));
        }
        Some(local)
    }

    /// Makes every function from the variable's to this one hand it on.
    fn capture(&mut self, function: usize, name: &Rc<str>) -> Option<(u16, bool, u32)> {
        let around = function.checked_sub(1)?;
        let (capture, boxed, number) = match self.find_local(around, name) {
            Some(local) => {
                self.found.captured.insert(local.number);
                (Capture::Register(local.register), local.boxed, local.number)
            }
            None => {
                let (index, boxed, number) = self.capture(around, name)?;
                (Capture::Captured(index), boxed, number)
            }
        };
        let captures = &mut self.functions[function].captures;
        let index = match captures.iter().position(|c| *c == capture) {
            Some(index) => index,
            None => {
                captures.push(capture);
                captures.len() - 1
            }
        };
        if index == MAX_CAPTURES {
            self.error(Mistake::TooManyCaptured);
        }
        Some((index as u16, boxed, number))
    }

    /// Puts the variable's value into the next register.
    pub(super) fn get_variable(&mut self, name: &Rc<str>) {
        let variable = self.resolve(name);
        let dst = self.push();
        self.emit(match variable {
            Variable::Local {
                register,
                boxed: false,
                ..
            } => Op::Move { dst, src: register },
            Variable::Local {
                register,
                boxed: true,
                ..
            } => Op::GetBox { dst, src: register },
            Variable::Captured {
                index,
                boxed: false,
                ..
            } => Op::GetCaptured { dst, index },
            Variable::Captured {
                index, boxed: true, ..
            } => Op::GetCapturedBox { dst, index },
            Variable::Global(global) => Op::GetGlobal { dst, global },
        });
    }

    /// Compiles an expression and assigns its value to the variable. The value stays in the
    /// register it is in.
    pub(super) fn set_variable(&mut self, name: &Rc<str>) {
        let variable = self.resolve(name);
        self.expression();
        let src = self.top();
        match variable {
            Variable::Local {
                register,
                boxed,
                number,
            } => {
                self.found.assigned.insert(number);
                if boxed {
                    self.emit(Op::SetBox { dst: register, src });
                } else {
                    self.store_local(register);
                }
            }
            Variable::Captured { index, number, .. } => {
                self.found.assigned.insert(number);
                self.emit(Op::SetCapturedBox { src, index });
            }
            Variable::Global(global) => self.emit(Op::SetGlobal { src, global }),
        }
    }
}
