//! Expressions: a Pratt parser. Each leaves its value in the next register.

use std::rc::Rc;

use super::code::FunctionKind;
use super::{Compiler, Place};
use crate::dialect::Dialect;
use crate::error::Mistake;
use crate::op::{Compare, Op, Reg};
use crate::scan::TokenKind;

/// Arguments of a call.
const MAX_ARGUMENTS: usize = 255;

/// How tightly an operator binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Precedence {
    None,
    Assignment,
    Or,
    And,
    Equality,
    Comparison,
    Term,
    Factor,
    Unary,
    Call,
}

impl Precedence {
    /// Of an operator between or after operands.
    fn of(kind: TokenKind) -> Self {
        match kind {
            TokenKind::Or => Self::Or,
            TokenKind::And => Self::And,
            TokenKind::BangEqual | TokenKind::EqualEqual => Self::Equality,
            TokenKind::Greater
            | TokenKind::GreaterEqual
            | TokenKind::Less
            | TokenKind::LessEqual => Self::Comparison,
            TokenKind::Minus | TokenKind::Plus => Self::Term,
            TokenKind::Slash | TokenKind::Star => Self::Factor,
            TokenKind::LeftParen | TokenKind::Dot => Self::Call,
            _ => Self::None,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::None => Self::Assignment,
            Self::Assignment => Self::Or,
            Self::Or => Self::And,
            Self::And => Self::Equality,
            Self::Equality => Self::Comparison,
            Self::Comparison => Self::Term,
            Self::Term => Self::Factor,
            Self::Factor => Self::Unary,
            Self::Unary | Self::Call => Self::Call,
        }
    }
}

/// Where an expression began.
#[derive(Clone, Copy, Debug)]
struct Start<'src> {
    place: Place<'src>,
    code: usize,
    depth: usize,
    precedence: Precedence,
}

impl<'src> Compiler<'src> {
    pub(super) fn expression(&mut self) {
        self.parse(Precedence::Assignment);
    }

    fn parse(&mut self, precedence: Precedence) {
        self.nested(|c| c.parse_here(precedence));
    }

    fn parse_here(&mut self, precedence: Precedence) {
        let start = Start {
            place: self.place,
            code: self.here(),
            depth: self.function().depth,
            precedence,
        };
        self.advance();
        let can_assign = precedence <= Precedence::Assignment;
        self.prefix(can_assign);
        while precedence <= Precedence::of(self.place.current.kind)
            && Precedence::of(self.place.current.kind) != Precedence::None
            && self.stop_before != Some(self.place.current.offset)
        {
            self.advance();
            self.infix(&start, can_assign);
        }
        if can_assign && self.check(TokenKind::Equal) {
            self.error_at_current(Mistake::InvalidTarget);
            self.advance();
        }
        // Whatever went wrong, a value was promised.
        self.function().depth = start.depth + 1;
    }

    fn prefix(&mut self, can_assign: bool) {
        match self.place.previous.kind {
            TokenKind::LeftParen => {
                self.expression();
                self.expect(TokenKind::RightParen, "Expect ')' after expression.");
            }
            TokenKind::Minus | TokenKind::Bang => self.unary(),
            TokenKind::Identifier => self.variable(can_assign),
            TokenKind::Number => self.number(),
            TokenKind::String => self.string(),
            TokenKind::Nil => self.literal(|dst| Op::Nil { dst }),
            TokenKind::True => self.literal(|dst| Op::True { dst }),
            TokenKind::False => self.literal(|dst| Op::False { dst }),
            TokenKind::This => self.this(),
            TokenKind::Super => self.super_(),
            _ => self.error(Mistake::Expected("Expect expression.")),
        }
    }

    fn infix(&mut self, start: &Start<'src>, can_assign: bool) {
        match self.place.previous.kind {
            TokenKind::And => self.and(),
            TokenKind::Or => self.or(),
            TokenKind::LeftParen => self.call(),
            TokenKind::Dot => self.dot(start, can_assign),
            _ => self.binary(),
        }
    }

    // ---- operands -------------------------------------------------------------------------------

    fn literal(&mut self, op: impl FnOnce(Reg) -> Op) {
        let dst = self.push();
        self.emit(op(dst));
    }

    fn number(&mut self) {
        // The scanner has seen to it that it is a number.
        let number = self.place.previous.text.parse().unwrap_or(f64::NAN);
        let index = self.number_constant(number);
        self.literal(|dst| Op::Constant { dst, index });
    }

    fn string(&mut self) {
        let text = self.place.previous.text;
        let index = self.text_constant(&text[1..text.len() - 1]);
        self.literal(|dst| Op::Constant { dst, index });
    }

    fn variable(&mut self, can_assign: bool) {
        let name: Rc<str> = self.place.previous.text.into();
        // Two words after each other are no expression of Lox, so `spawn` needs not be reserved.
        let callee_follows = matches!(
            self.place.current.kind,
            TokenKind::Identifier | TokenKind::This
        );
        if &*name == "spawn" && callee_follows {
            self.spawn();
        } else if can_assign && self.take(TokenKind::Equal) {
            self.set_variable(&name);
        } else {
            self.get_variable(&name);
        }
    }

    fn this(&mut self) {
        if self.classes.is_empty() {
            self.error(Mistake::ThisOutsideClass);
            return;
        }
        self.get_variable(&"this".into());
    }

    fn super_(&mut self) {
        match self.classes.last() {
            None => self.error(Mistake::SuperOutsideClass),
            Some(class) if !class.has_superclass => self.error(Mistake::NoSuperclass),
            Some(_) => {}
        }
        self.expect(TokenKind::Dot, "Expect '.' after 'super'.");
        let name = self.identifier("Expect superclass method name.");
        if self.panicking {
            return;
        }
        let site = self.site(&name);
        self.get_variable(&"this".into());
        let at = self.top();
        if self.take(TokenKind::LeftParen) {
            let count = self.arguments();
            self.get_variable(&"super".into());
            self.emit(Op::SuperInvoke { at, site, count });
        } else {
            self.get_variable(&"super".into());
            self.emit(Op::GetSuper { at, site });
        }
        self.release_above(at);
    }

    /// `spawn callee(arguments)`
    fn spawn(&mut self) {
        self.parse(Precedence::Call);
        let at = self.top();
        match self.take_call(at) {
            Some(Op::Call { count, .. }) => self.emit(Op::Spawn { at, count }),
            Some(Op::Invoke { site, count, .. }) => {
                self.emit(Op::GetProperty {
                    dst: at,
                    object: at,
                    site,
                });
                self.emit(Op::Spawn { at, count });
            }
            _ => self.error(Mistake::SpawnWithoutCall),
        }
    }

    // ---- operators ------------------------------------------------------------------------------

    fn unary(&mut self) {
        let operator = self.place.previous;
        self.parse(Precedence::Unary);
        let src = self.take_operand();
        let dst = self.push();
        if operator.kind == TokenKind::Minus {
            self.emit(Op::Negate { dst, src });
        } else {
            self.emit(Op::Not { dst, src });
        }
    }

    fn binary(&mut self) {
        let operator = self.place.previous.kind;
        let stable = self.take_stable_operand();
        self.parse(Precedence::of(operator).next());
        let number = if takes_number(operator) {
            self.take_small_number()
        } else {
            None
        };
        if let Some(number) = number {
            let a = stable.unwrap_or_else(|| self.take_operand());
            let dst = self.push();
            self.emit(with_number(operator, dst, a, number));
            return;
        }
        let b = self.take_operand();
        let a = stable.unwrap_or_else(|| self.take_operand());
        let dst = self.push();
        self.emit(with_registers(operator, dst, a, b));
    }

    fn and(&mut self) {
        let src = self.top();
        let end = self.emit_jump(Op::JumpIfFalse { src, by: 0 });
        self.pop();
        self.parse(Precedence::And);
        self.land(end);
    }

    fn or(&mut self) {
        let src = self.top();
        let end = self.emit_jump(Op::JumpIfTrue { src, by: 0 });
        self.pop();
        self.parse(Precedence::Or);
        self.land(end);
    }

    fn call(&mut self) {
        let at = self.top();
        let count = self.arguments();
        self.emit(Op::Call { at, count });
        self.release_above(at);
    }

    /// The arguments of a call, in the registers that follow.
    fn arguments(&mut self) -> u8 {
        let mut count = 0;
        if !self.check(TokenKind::RightParen) {
            loop {
                self.expression();
                if count == MAX_ARGUMENTS {
                    self.error(Mistake::TooManyArguments);
                    break;
                }
                count += 1;
                if !self.take(TokenKind::Comma) || self.panicking {
                    break;
                }
            }
        }
        self.expect(TokenKind::RightParen, "Expect ')' after arguments.");
        count as u8
    }

    /// Gives back every register above `at`.
    fn release_above(&mut self, at: Reg) {
        self.function().depth = usize::from(at) + 1;
    }

    fn dot(&mut self, start: &Start<'src>, can_assign: bool) {
        let dot = self.place.previous.offset;
        let name = self.identifier("Expect property name after '.'.");
        if can_assign && self.take(TokenKind::Equal) {
            self.set_property(start, dot, &name);
            return;
        }
        let site = self.site(&name);
        if self.take(TokenKind::LeftParen) {
            let at = self.top();
            let count = self.arguments();
            self.emit(Op::Invoke { at, site, count });
            self.release_above(at);
        } else {
            let object = self.take_operand();
            let dst = self.push();
            self.emit(Op::GetProperty { dst, object, site });
        }
    }

    fn set_property(&mut self, start: &Start<'src>, dot: usize, name: &Rc<str>) {
        let site = self.site(name);
        if self.dialect == Dialect::Loxcraft {
            self.set_property_value_first(start, dot, name, site);
            return;
        }
        let stable = self.take_stable_operand();
        self.expression();
        let src = self.take_operand();
        let object = stable.unwrap_or_else(|| self.take_operand());
        self.emit(Op::SetProperty { object, src, site });
        self.note_field(object, name);
        // The value of the whole expression, if anybody asks for it.
        let dst = self.push();
        if src != dst {
            self.emit(Op::Move { dst, src });
        }
    }

    /// Compiles the value, then goes back and compiles the object again.
    fn set_property_value_first(
        &mut self,
        start: &Start<'src>,
        dot: usize,
        name: &Rc<str>,
        site: u16,
    ) {
        self.rewind_code(start.code);
        self.function().depth = start.depth;
        self.expression();
        let src = self.top();
        if !self.errors.is_empty() {
            return;
        }
        let after = std::mem::replace(&mut self.place, start.place);
        let outer = self.stop_before.replace(dot);
        self.parse(start.precedence);
        self.stop_before = outer;
        self.place = after;
        let object = self.take_operand();
        self.emit(Op::SetProperty { object, src, site });
        self.note_field(object, name);
    }

    /// A field of the object in this register is set: if that is `this`, the class will want room
    /// for it.
    fn note_field(&mut self, object: Reg, name: &Rc<str>) {
        let kind = self.function().kind;
        if object == 0
            && matches!(kind, FunctionKind::Method | FunctionKind::Initializer)
            && let Some(class) = self.classes.last_mut()
        {
            class.fields.insert(name.clone());
        }
    }
}

fn takes_number(operator: TokenKind) -> bool {
    !matches!(operator, TokenKind::Star | TokenKind::Slash)
}

fn compare_of(operator: TokenKind) -> Option<Compare> {
    match operator {
        TokenKind::EqualEqual => Some(Compare::Equal),
        TokenKind::BangEqual => Some(Compare::NotEqual),
        TokenKind::Less => Some(Compare::Less),
        TokenKind::LessEqual => Some(Compare::LessEqual),
        TokenKind::Greater => Some(Compare::Greater),
        TokenKind::GreaterEqual => Some(Compare::GreaterEqual),
        _ => None,
    }
}

fn with_number(operator: TokenKind, dst: Reg, a: Reg, number: i16) -> Op {
    match (operator, compare_of(operator)) {
        (_, Some(compare)) => Op::compare_number(compare, dst, a, number),
        (TokenKind::Plus, _) => Op::AddNumber { dst, a, number },
        _ => Op::SubtractNumber { dst, a, number },
    }
}

fn with_registers(operator: TokenKind, dst: Reg, a: Reg, b: Reg) -> Op {
    match (operator, compare_of(operator)) {
        (_, Some(compare)) => Op::compare(compare, dst, a, b),
        (TokenKind::Plus, _) => Op::Add { dst, a, b },
        (TokenKind::Minus, _) => Op::Subtract { dst, a, b },
        (TokenKind::Star, _) => Op::Multiply { dst, a, b },
        _ => Op::Divide { dst, a, b },
    }
}
