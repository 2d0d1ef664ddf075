//! The interpreter: one function, one loop, one `match`.
//!
//! It runs inside an open `Frame`, with a `&Mutator`: every pointer it holds is good until it
//! returns. It returns at a safepoint that is due, at a wait, at the end, and at an error, having
//! put everything into the frame.

use std::sync::Arc;

use greywave::Mutator;

use super::call::{self, Called};
use super::{CallFrame, Exit, MAX_FRAMES, Stack, ops, window};
use crate::compile::MAX_REGISTERS;
use crate::object::{Cell, Method};
use crate::op::Op;
use crate::shape;
use crate::thread::{self, Shared};
use crate::value::{Slot, Value};

/// Runs until there is a reason to stop.
pub(crate) fn run<'m>(m: &'m Mutator, stack: &mut Stack<'m>, shared: &Arc<Shared>) -> Exit {
    let Stack {
        values,
        frames,
        current,
        classes,
        ..
    } = stack;
    let Some(CallFrame {
        mut closure,
        ip,
        base,
    }) = current.take()
    else {
        return Exit::Done;
    };
    let (mut ip, mut base) = (ip as usize, base as usize);
    let mut function = closure.header().as_ref();
    let mut code = &*function.code;
    let mut w = window(values, base);

    /// A register. The mask costs less than a check, and changes nothing: the compiler gives out no
    /// others.
    macro_rules! reg {
        ($reg:expr) => {
            w[usize::from($reg) & (MAX_REGISTERS - 1)]
        };
    }
    /// Puts everything into the frame and returns.
    macro_rules! leave {
        ($exit:expr) => {{
            *current = Some(CallFrame {
                closure,
                ip: ip as u32,
                base: base as u32,
            });
            return $exit;
        }};
    }
    macro_rules! attempt {
        ($result:expr) => {
            match $result {
                Ok(value) => value,
                Err(error) => leave!(Exit::Error(error)),
            }
        };
    }
    macro_rules! poll {
        () => {
            if m.safepoint_is_due() {
                leave!(Exit::Safepoint);
            }
        };
    }
    /// Begins a call of a closure, whose registers begin at `at`.
    macro_rules! enter {
        ($callee:expr, $at:expr, $count:expr) => {{
            let callee = $callee;
            let target = callee.header().as_ref();
            if target.arity != $count || frames.len() >= MAX_FRAMES {
                let error = call::refusal(target, usize::from($count), frames.len());
                leave!(Exit::Error(error));
            }
            frames.push(CallFrame {
                closure,
                ip: ip as u32,
                base: base as u32,
            });
            base += usize::from($at);
            closure = callee;
            function = target;
            code = &*function.code;
            ip = 0;
            w = window(values, base);
            poll!();
        }};
    }
    /// Goes on with what a call came to.
    macro_rules! called {
        ($called:expr, $at:expr, $count:expr) => {
            match attempt!($called) {
                Called::Closure(callee, receiver) => {
                    reg!($at) = receiver;
                    enter!(callee, $at, $count);
                }
                Called::Result(value) => reg!($at) = value,
                Called::Wait(wait) => {
                    // The call is made again afterwards.
                    ip -= 1;
                    leave!(Exit::Wait(wait));
                }
            }
        };
    }
    macro_rules! call_value {
        ($at:expr, $count:expr) => {{
            let first = usize::from($at) + 1;
            let arguments = &w[first..first + usize::from($count)];
            called!(
                call::call_value(m, shared, reg!($at), arguments),
                $at,
                $count
            )
        }};
    }
    macro_rules! arithmetic {
        ($dst:expr, $a:expr, $b:expr, $name:literal, $op:tt) => {{
            let (a, b) = ($a, $b);
            match (a.as_number(), b.as_number()) {
                (Some(x), Some(y)) => reg!($dst) = Value::number(x $op y),
                _ => leave!(Exit::Error(ops::bad_operands($name, a, b))),
            }
        }};
    }
    macro_rules! compare {
        ($a:expr, $b:expr, $name:literal, $op:tt) => {{
            let (a, b) = ($a, $b);
            match (a.as_number(), b.as_number()) {
                (Some(x), Some(y)) => x $op y,
                _ => leave!(Exit::Error(ops::bad_operands($name, a, b))),
            }
        }};
    }
    macro_rules! number {
        ($number:expr) => {
            Value::number(f64::from($number))
        };
    }
    macro_rules! jump_unless {
        ($holds:expr, $by:expr) => {
            if !$holds {
                ip = ip.wrapping_add_signed(isize::from($by));
            }
        };
    }
    macro_rules! equals_number {
        ($a:expr, $number:expr) => {
            reg!($a).as_number() == Some(f64::from($number))
        };
    }

    loop {
        let op = code[ip];
        ip += 1;
        match op {
            Op::Move { dst, src } => reg!(dst) = reg!(src),
            Op::Constant { dst, index } => reg!(dst) = function.constants[usize::from(index)],
            Op::Nil { dst } => reg!(dst) = Value::NIL,
            Op::True { dst } => reg!(dst) = Value::TRUE,
            Op::False { dst } => reg!(dst) = Value::FALSE,

            Op::GetGlobal { dst, global } => {
                let global = function.globals[usize::from(global)].as_ref();
                let value = global.value.get();
                if value.is_undefined() {
                    leave!(Exit::Error(ops::undefined_variable(global.name)));
                }
                reg!(dst) = value;
            }
            Op::SetGlobal { src, global } => {
                let global = function.globals[usize::from(global)].as_ref();
                if global.value.get().is_undefined() {
                    leave!(Exit::Error(ops::undefined_variable(global.name)));
                }
                global.value.set(m, reg!(src));
            }
            Op::DefineGlobal { src, global } => {
                let global = function.globals[usize::from(global)].as_ref();
                global.value.set(m, reg!(src));
            }

            Op::GetCaptured { dst, index } => reg!(dst) = closure.items()[usize::from(index)],
            Op::GetCapturedBox { dst, index } => {
                if let Some(cell) = closure.items()[usize::from(index)].as_cell() {
                    reg!(dst) = cell.as_ref().value.get();
                }
            }
            Op::SetCapturedBox { src, index } => {
                if let Some(cell) = closure.items()[usize::from(index)].as_cell() {
                    cell.as_ref().value.set(m, reg!(src));
                }
            }
            Op::Box { reg } => {
                let value = Slot::new(reg!(reg));
                reg!(reg) = Value::cell(m.alloc(Cell { value }));
            }
            Op::NewBox { reg } => {
                let value = Slot::new(Value::NIL);
                reg!(reg) = Value::cell(m.alloc(Cell { value }));
            }
            Op::GetBox { dst, src } => {
                if let Some(cell) = reg!(src).as_cell() {
                    reg!(dst) = cell.as_ref().value.get();
                }
            }
            Op::SetBox { dst, src } => {
                if let Some(cell) = reg!(dst).as_cell() {
                    cell.as_ref().value.set(m, reg!(src));
                }
            }

            Op::GetProperty { dst, object, site } => {
                let value = reg!(object);
                let site = &function.sites[usize::from(site)];
                if let Some(object) = value.as_instance()
                    && let Some(field) = shape::cached_field(object, site)
                {
                    reg!(dst) = field;
                } else {
                    reg!(dst) = attempt!(ops::get_property(m, value, site));
                }
            }
            Op::SetProperty { object, src, site } => {
                let target = reg!(object);
                let site = &function.sites[usize::from(site)];
                let value = reg!(src);
                if let Some(object) = target.as_instance()
                    && shape::set_cached_field(m, object, site, value)
                {
                } else {
                    attempt!(ops::set_property(m, target, site, value));
                }
            }
            Op::GetSuper { at, site } => {
                let site = &function.sites[usize::from(site)];
                if let Some(class) = reg!(at + 1).as_class() {
                    let method = attempt!(ops::find_super(class, site));
                    reg!(at) = ops::bind(m, reg!(at), method);
                }
            }

            Op::Equal { dst, a, b } => reg!(dst) = Value::bool(reg!(a).equals(reg!(b))),
            Op::NotEqual { dst, a, b } => reg!(dst) = Value::bool(!reg!(a).equals(reg!(b))),
            Op::Less { dst, a, b } => {
                reg!(dst) = Value::bool(compare!(reg!(a), reg!(b), "<", <));
            }
            Op::LessEqual { dst, a, b } => {
                reg!(dst) = Value::bool(compare!(reg!(a), reg!(b), "<=", <=));
            }
            Op::Greater { dst, a, b } => {
                reg!(dst) = Value::bool(compare!(reg!(a), reg!(b), ">", >));
            }
            Op::GreaterEqual { dst, a, b } => {
                reg!(dst) = Value::bool(compare!(reg!(a), reg!(b), ">=", >=));
            }
            Op::EqualNumber { dst, a, number } => {
                reg!(dst) = Value::bool(equals_number!(a, number));
            }
            Op::NotEqualNumber { dst, a, number } => {
                reg!(dst) = Value::bool(!equals_number!(a, number));
            }
            Op::LessNumber { dst, a, number } => {
                reg!(dst) = Value::bool(compare!(reg!(a), number!(number), "<", <));
            }
            Op::LessEqualNumber { dst, a, number } => {
                reg!(dst) = Value::bool(compare!(reg!(a), number!(number), "<=", <=));
            }
            Op::GreaterNumber { dst, a, number } => {
                reg!(dst) = Value::bool(compare!(reg!(a), number!(number), ">", >));
            }
            Op::GreaterEqualNumber { dst, a, number } => {
                reg!(dst) = Value::bool(compare!(reg!(a), number!(number), ">=", >=));
            }
            Op::Add { dst, a, b } => {
                let (a, b) = (reg!(a), reg!(b));
                reg!(dst) = match (a.as_number(), b.as_number()) {
                    (Some(x), Some(y)) => Value::number(x + y),
                    _ => attempt!(ops::add(m, shared, a, b)),
                };
            }
            Op::Subtract { dst, a, b } => arithmetic!(dst, reg!(a), reg!(b), "-", -),
            Op::Multiply { dst, a, b } => arithmetic!(dst, reg!(a), reg!(b), "*", *),
            Op::Divide { dst, a, b } => arithmetic!(dst, reg!(a), reg!(b), "/", /),
            Op::AddNumber { dst, a, number } => {
                arithmetic!(dst, reg!(a), number!(number), "+", +);
            }
            Op::SubtractNumber { dst, a, number } => {
                arithmetic!(dst, reg!(a), number!(number), "-", -);
            }
            Op::Not { dst, src } => reg!(dst) = Value::bool(reg!(src).is_falsey()),
            Op::Negate { dst, src } => match reg!(src).as_number() {
                Some(number) => reg!(dst) = Value::number(-number),
                None => leave!(Exit::Error(ops::bad_operand(reg!(src)))),
            },

            Op::Jump { by } => jump_unless!(false, by),
            Op::JumpIfFalse { src, by } => jump_unless!(!reg!(src).is_falsey(), by),
            Op::JumpIfTrue { src, by } => jump_unless!(reg!(src).is_falsey(), by),
            Op::UnlessEqual { a, b, by } => jump_unless!(reg!(a).equals(reg!(b)), by),
            Op::UnlessNotEqual { a, b, by } => jump_unless!(!reg!(a).equals(reg!(b)), by),
            Op::UnlessLess { a, b, by } => {
                jump_unless!(compare!(reg!(a), reg!(b), "<", <), by);
            }
            Op::UnlessLessEqual { a, b, by } => {
                jump_unless!(compare!(reg!(a), reg!(b), "<=", <=), by);
            }
            Op::UnlessGreater { a, b, by } => {
                jump_unless!(compare!(reg!(a), reg!(b), ">", >), by);
            }
            Op::UnlessGreaterEqual { a, b, by } => {
                jump_unless!(compare!(reg!(a), reg!(b), ">=", >=), by);
            }
            Op::UnlessEqualNumber { a, number, by } => {
                jump_unless!(equals_number!(a, number), by);
            }
            Op::UnlessNotEqualNumber { a, number, by } => {
                jump_unless!(!equals_number!(a, number), by);
            }
            Op::UnlessLessNumber { a, number, by } => {
                jump_unless!(compare!(reg!(a), number!(number), "<", <), by);
            }
            Op::UnlessLessEqualNumber { a, number, by } => {
                jump_unless!(compare!(reg!(a), number!(number), "<=", <=), by);
            }
            Op::UnlessGreaterNumber { a, number, by } => {
                jump_unless!(compare!(reg!(a), number!(number), ">", >), by);
            }
            Op::UnlessGreaterEqualNumber { a, number, by } => {
                jump_unless!(compare!(reg!(a), number!(number), ">=", >=), by);
            }
            Op::Loop { by } => {
                jump_unless!(false, by);
                poll!();
            }

            Op::Call { at, count } => {
                let callee = reg!(at);
                if let Some(callee) = callee.as_closure() {
                    enter!(callee, at, count);
                } else if let Some(class) = callee.as_class() {
                    called!(call::call_class(m, class, usize::from(count)), at, count);
                } else {
                    call_value!(at, count);
                }
            }
            Op::Invoke { at, site, count } => {
                let receiver = reg!(at);
                let site = &function.sites[usize::from(site)];
                if let Some(object) = receiver.as_instance()
                    && let Some(method) = shape::cached_method(object, site)
                {
                    enter!(method, at, count);
                } else {
                    match attempt!(ops::find_callee(receiver, site)) {
                        shape::Property::Method(method) => enter!(method, at, count),
                        shape::Property::Field(callee) => {
                            reg!(at) = callee;
                            call_value!(at, count);
                        }
                    }
                }
            }
            Op::SuperInvoke { at, site, count } => {
                let site = &function.sites[usize::from(site)];
                if let Some(class) = reg!(at + 1 + u16::from(count)).as_class() {
                    let method = attempt!(ops::find_super(class, site));
                    enter!(method, at, count);
                }
            }
            Op::Spawn { at, count } => {
                let first = usize::from(at);
                let call = &w[first..=first + usize::from(count)];
                let line = function.lines.get(ip - 1).copied().unwrap_or(0);
                reg!(at) = attempt!(thread::spawn(m, shared, call, line));
            }
            Op::Return { src } => {
                w[0] = reg!(src);
                let Some(caller) = frames.pop() else {
                    return Exit::Done;
                };
                closure = caller.closure;
                ip = caller.ip as usize;
                base = caller.base as usize;
                function = closure.header().as_ref();
                code = &*function.code;
                w = window(values, base);
            }

            Op::Closure { dst, index } => {
                let made = function.functions[usize::from(index)];
                reg!(dst) = call::make_closure(m, made, closure, w);
            }
            Op::Class { name } => {
                let name = function.names[usize::from(name)];
                classes.push(attempt!(call::begin_class(name, None)));
            }
            Op::Subclass { name, superclass } => {
                let name = function.names[usize::from(name)];
                classes.push(attempt!(call::begin_class(name, Some(reg!(superclass)))));
            }
            Op::Method { name, src } => {
                let name = function.names[usize::from(name)];
                if let (Some(class), Some(closure)) = (classes.last_mut(), reg!(src).as_closure()) {
                    class.add(Method { name, closure });
                }
            }
            Op::EndClass { dst, fields } => {
                if let Some(class) = classes.pop() {
                    reg!(dst) = class.finish(m, shared.realm.get(m).init.get(), u32::from(fields));
                }
            }

            Op::Print { src } => attempt!(ops::print(reg!(src), shared)),
        }
    }
}
