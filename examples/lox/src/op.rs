//! The instructions: eight bytes each, operands are registers of the frame.
//!
//! A frame's registers are its part of the operand stack: the callee or `this` in register 0, then
//! parameters and locals in the order of their declaration, then temporaries. The compiler knows
//! the depth of the stack at every instruction, so none of them moves a stack pointer, and an
//! operand that is a local is read where it is.

/// A register of the frame.
pub(crate) type Reg = u16;

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its operator")]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// One instruction. Jumps are counted from the instruction after it.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the fields are named after what they hold")]
pub(crate) enum Op {
    /// `dst = src`
    Move {
        dst: Reg,
        src: Reg,
    },
    /// `dst = constants[index]`
    Constant {
        dst: Reg,
        index: u16,
    },
    Nil {
        dst: Reg,
    },
    True {
        dst: Reg,
    },
    False {
        dst: Reg,
    },

    GetGlobal {
        dst: Reg,
        global: u16,
    },
    SetGlobal {
        src: Reg,
        global: u16,
    },
    DefineGlobal {
        src: Reg,
        global: u16,
    },

    /// `dst = captured[index]`, which never changes.
    GetCaptured {
        dst: Reg,
        index: u16,
    },
    /// `dst =` content of the box `captured[index]`.
    GetCapturedBox {
        dst: Reg,
        index: u16,
    },
    SetCapturedBox {
        src: Reg,
        index: u16,
    },
    /// Moves the value of `reg` into a box on the heap, which takes its place in the register.
    Box {
        reg: Reg,
    },
    /// Puts an empty box into `reg`.
    NewBox {
        reg: Reg,
    },
    /// `dst =` content of the box in `src`.
    GetBox {
        dst: Reg,
        src: Reg,
    },
    /// Content of the box in `dst` `= src`.
    SetBox {
        dst: Reg,
        src: Reg,
    },

    GetProperty {
        dst: Reg,
        object: Reg,
        site: u16,
    },
    SetProperty {
        object: Reg,
        src: Reg,
        site: u16,
    },
    /// `at` holds `this`, `at + 1` the superclass; the bound method goes to `at`.
    GetSuper {
        at: Reg,
        site: u16,
    },

    Equal {
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    NotEqual {
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    Less {
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    LessEqual {
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    Greater {
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    GreaterEqual {
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    /// `dst = (a == number)`; so the others.
    EqualNumber {
        dst: Reg,
        a: Reg,
        number: i16,
    },
    NotEqualNumber {
        dst: Reg,
        a: Reg,
        number: i16,
    },
    LessNumber {
        dst: Reg,
        a: Reg,
        number: i16,
    },
    LessEqualNumber {
        dst: Reg,
        a: Reg,
        number: i16,
    },
    GreaterNumber {
        dst: Reg,
        a: Reg,
        number: i16,
    },
    GreaterEqualNumber {
        dst: Reg,
        a: Reg,
        number: i16,
    },
    Add {
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    Subtract {
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    Multiply {
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    Divide {
        dst: Reg,
        a: Reg,
        b: Reg,
    },
    /// `dst = a + number`
    AddNumber {
        dst: Reg,
        a: Reg,
        number: i16,
    },
    /// `dst = a - number`
    SubtractNumber {
        dst: Reg,
        a: Reg,
        number: i16,
    },
    Not {
        dst: Reg,
        src: Reg,
    },
    Negate {
        dst: Reg,
        src: Reg,
    },

    Jump {
        by: i16,
    },
    JumpIfFalse {
        src: Reg,
        by: i16,
    },
    JumpIfTrue {
        src: Reg,
        by: i16,
    },
    /// Jumps unless `a == b`; so the others.
    UnlessEqual {
        a: Reg,
        b: Reg,
        by: i16,
    },
    UnlessNotEqual {
        a: Reg,
        b: Reg,
        by: i16,
    },
    UnlessLess {
        a: Reg,
        b: Reg,
        by: i16,
    },
    UnlessLessEqual {
        a: Reg,
        b: Reg,
        by: i16,
    },
    UnlessGreater {
        a: Reg,
        b: Reg,
        by: i16,
    },
    UnlessGreaterEqual {
        a: Reg,
        b: Reg,
        by: i16,
    },
    /// Jumps unless `a == number`; so the others.
    UnlessEqualNumber {
        a: Reg,
        number: i16,
        by: i16,
    },
    UnlessNotEqualNumber {
        a: Reg,
        number: i16,
        by: i16,
    },
    UnlessLessNumber {
        a: Reg,
        number: i16,
        by: i16,
    },
    UnlessLessEqualNumber {
        a: Reg,
        number: i16,
        by: i16,
    },
    UnlessGreaterNumber {
        a: Reg,
        number: i16,
        by: i16,
    },
    UnlessGreaterEqualNumber {
        a: Reg,
        number: i16,
        by: i16,
    },
    /// A jump backwards, with a poll for the collector.
    Loop {
        by: i16,
    },

    /// Calls what `at` holds with the `count` arguments after it; the result goes to `at`.
    Call {
        at: Reg,
        count: u8,
    },
    /// Calls a method or field of the object in `at`.
    Invoke {
        at: Reg,
        site: u16,
        count: u8,
    },
    /// As `Invoke`, on the superclass, which is in the register after the arguments.
    SuperInvoke {
        at: Reg,
        site: u16,
        count: u8,
    },
    /// As `Call`, on a thread of its own; its handle goes to `at`.
    Spawn {
        at: Reg,
        count: u8,
    },
    Return {
        src: Reg,
    },

    /// `dst =` a closure of `functions[index]`.
    Closure {
        dst: Reg,
        index: u16,
    },
    /// Begins a class: no superclass.
    Class {
        name: u16,
    },
    /// Begins a class whose superclass is in `superclass`.
    Subclass {
        name: u16,
        superclass: Reg,
    },
    /// Adds the closure in `src` to the class begun last.
    Method {
        name: u16,
        src: Reg,
    },
    /// `dst =` the class begun last, whose methods set `fields` fields of `this`.
    EndClass {
        dst: Reg,
        fields: u16,
    },

    Print {
        src: Reg,
    },
}

const _: () = assert!(size_of::<Op>() == 8, "an instruction is one word");

impl Op {
    /// The register that the instruction computes a value for, if that is all it does.
    pub(crate) fn result_mut(&mut self) -> Option<&mut Reg> {
        match self {
            Op::Move { dst, .. }
            | Op::Constant { dst, .. }
            | Op::Nil { dst }
            | Op::True { dst }
            | Op::False { dst }
            | Op::GetGlobal { dst, .. }
            | Op::GetCaptured { dst, .. }
            | Op::GetCapturedBox { dst, .. }
            | Op::GetBox { dst, .. }
            | Op::GetProperty { dst, .. }
            | Op::Equal { dst, .. }
            | Op::NotEqual { dst, .. }
            | Op::Less { dst, .. }
            | Op::LessEqual { dst, .. }
            | Op::Greater { dst, .. }
            | Op::GreaterEqual { dst, .. }
            | Op::EqualNumber { dst, .. }
            | Op::NotEqualNumber { dst, .. }
            | Op::LessNumber { dst, .. }
            | Op::LessEqualNumber { dst, .. }
            | Op::GreaterNumber { dst, .. }
            | Op::GreaterEqualNumber { dst, .. }
            | Op::Add { dst, .. }
            | Op::Subtract { dst, .. }
            | Op::Multiply { dst, .. }
            | Op::Divide { dst, .. }
            | Op::AddNumber { dst, .. }
            | Op::SubtractNumber { dst, .. }
            | Op::Not { dst, .. }
            | Op::Negate { dst, .. }
            | Op::Closure { dst, .. } => Some(dst),
            _ => None,
        }
    }

    /// An instruction that stores the comparison of two registers.
    pub(crate) fn compare(compare: Compare, dst: Reg, a: Reg, b: Reg) -> Self {
        match compare {
            Compare::Equal => Op::Equal { dst, a, b },
            Compare::NotEqual => Op::NotEqual { dst, a, b },
            Compare::Less => Op::Less { dst, a, b },
            Compare::LessEqual => Op::LessEqual { dst, a, b },
            Compare::Greater => Op::Greater { dst, a, b },
            Compare::GreaterEqual => Op::GreaterEqual { dst, a, b },
        }
    }

    /// An instruction that stores the comparison of a register with a number.
    pub(crate) fn compare_number(compare: Compare, dst: Reg, a: Reg, number: i16) -> Self {
        match compare {
            Compare::Equal => Op::EqualNumber { dst, a, number },
            Compare::NotEqual => Op::NotEqualNumber { dst, a, number },
            Compare::Less => Op::LessNumber { dst, a, number },
            Compare::LessEqual => Op::LessEqualNumber { dst, a, number },
            Compare::Greater => Op::GreaterNumber { dst, a, number },
            Compare::GreaterEqual => Op::GreaterEqualNumber { dst, a, number },
        }
    }

    /// The jump unless the comparison holds that this instruction would store.
    pub(crate) fn to_unless(self) -> Option<Self> {
        match self {
            Op::Equal { a, b, .. } => Some(Op::UnlessEqual { a, b, by: 0 }),
            Op::NotEqual { a, b, .. } => Some(Op::UnlessNotEqual { a, b, by: 0 }),
            Op::Less { a, b, .. } => Some(Op::UnlessLess { a, b, by: 0 }),
            Op::LessEqual { a, b, .. } => Some(Op::UnlessLessEqual { a, b, by: 0 }),
            Op::Greater { a, b, .. } => Some(Op::UnlessGreater { a, b, by: 0 }),
            Op::GreaterEqual { a, b, .. } => Some(Op::UnlessGreaterEqual { a, b, by: 0 }),
            Op::EqualNumber { a, number, .. } => Some(Op::UnlessEqualNumber { a, number, by: 0 }),
            Op::NotEqualNumber { a, number, .. } => {
                Some(Op::UnlessNotEqualNumber { a, number, by: 0 })
            }
            Op::LessNumber { a, number, .. } => Some(Op::UnlessLessNumber { a, number, by: 0 }),
            Op::LessEqualNumber { a, number, .. } => {
                Some(Op::UnlessLessEqualNumber { a, number, by: 0 })
            }
            Op::GreaterNumber { a, number, .. } => {
                Some(Op::UnlessGreaterNumber { a, number, by: 0 })
            }
            Op::GreaterEqualNumber { a, number, .. } => {
                Some(Op::UnlessGreaterEqualNumber { a, number, by: 0 })
            }
            _ => None,
        }
    }

    /// The distance of a jump.
    pub(crate) fn distance_mut(&mut self) -> Option<&mut i16> {
        match self {
            Op::Jump { by }
            | Op::JumpIfFalse { by, .. }
            | Op::JumpIfTrue { by, .. }
            | Op::UnlessEqual { by, .. }
            | Op::UnlessNotEqual { by, .. }
            | Op::UnlessLess { by, .. }
            | Op::UnlessLessEqual { by, .. }
            | Op::UnlessGreater { by, .. }
            | Op::UnlessGreaterEqual { by, .. }
            | Op::UnlessEqualNumber { by, .. }
            | Op::UnlessNotEqualNumber { by, .. }
            | Op::UnlessLessNumber { by, .. }
            | Op::UnlessLessEqualNumber { by, .. }
            | Op::UnlessGreaterNumber { by, .. }
            | Op::UnlessGreaterEqualNumber { by, .. }
            | Op::Loop { by } => Some(by),
            _ => None,
        }
    }
}
