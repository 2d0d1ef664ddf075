//! What the compiler makes: functions without a heap.

use std::rc::Rc;

use crate::op::Op;

/// A compiled function, before it is put into a heap.
#[derive(Debug, Default)]
pub(crate) struct Proto {
    /// Its name; `None` for a script.
    pub(crate) name: Option<Rc<str>>,
    /// How many arguments it takes.
    pub(crate) arity: u8,
    /// The instructions.
    pub(crate) code: Vec<Op>,
    /// The source line of each instruction.
    pub(crate) lines: Vec<u32>,
    /// The constants.
    pub(crate) constants: Vec<Constant>,
    /// The names of the global variables it uses.
    pub(crate) globals: Vec<Rc<str>>,
    /// The names at the places where it uses a property.
    pub(crate) sites: Vec<Rc<str>>,
    /// The names of its classes and methods.
    pub(crate) names: Vec<Rc<str>>,
    /// The functions declared in it.
    pub(crate) functions: Vec<Proto>,
    /// What a closure of it takes from the function around it.
    pub(crate) captures: Vec<Capture>,
}

/// A constant.
#[derive(Clone, Debug)]
pub(crate) enum Constant {
    /// A number.
    Number(f64),
    /// A string.
    Text(Rc<str>),
}

/// Where a closure finds a captured variable when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capture {
    /// In a register of the function that makes it.
    Register(u16),
    /// Among that function's own captured variables.
    Captured(u16),
}
