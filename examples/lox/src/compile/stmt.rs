//! Declarations and statements.

use std::collections::HashSet;
use std::rc::Rc;

use super::code::{Function, FunctionKind};
use super::{ClassScope, Compiler};
use crate::error::Mistake;
use crate::op::{Op, Reg};
use crate::scan::TokenKind;

/// Parameters of a function.
const MAX_PARAMETERS: u8 = 255;

/// Fields that a class asks room for; more get it when they are there.
const MAX_ROOM: usize = 64;

/// Where the value of a declaration goes.
#[derive(Debug)]
enum Target {
    Global(u16),
    Register(Reg),
    Box(Reg),
}

impl Compiler<'_> {
    pub(super) fn declaration(&mut self) {
        if self.take(TokenKind::Class) {
            self.class_declaration();
        } else if self.take(TokenKind::Fun) {
            self.function_declaration();
        } else if self.take(TokenKind::Var) {
            self.variable_declaration();
        } else {
            self.statement();
        }
        if self.panicking {
            self.synchronize();
        }
    }

    fn statement(&mut self) {
        self.nested(|c| {
            if c.take(TokenKind::Print) {
                c.print_statement();
            } else if c.take(TokenKind::For) {
                c.for_statement();
            } else if c.take(TokenKind::If) {
                c.if_statement();
            } else if c.take(TokenKind::Return) {
                c.return_statement();
            } else if c.take(TokenKind::While) {
                c.while_statement();
            } else if c.take(TokenKind::LeftBrace) {
                c.begin_scope();
                c.block();
                c.end_scope();
            } else {
                c.expression_statement();
            }
        });
    }

    fn block(&mut self) {
        while !self.check(TokenKind::RightBrace) && !self.check(TokenKind::EndOfFile) {
            self.declaration();
        }
        self.expect(TokenKind::RightBrace, "Expect '}' after block.");
    }

    // ---- declarations ---------------------------------------------------------------------------

    fn variable_declaration(&mut self) {
        let name = self.identifier("Expect variable name.");
        let global = self.is_global_scope();
        if !global {
            self.declare_local(&name, false);
        }
        if self.take(TokenKind::Equal) {
            self.expression();
        } else {
            let dst = self.push();
            self.emit(Op::Nil { dst });
        }
        self.expect(
            TokenKind::Semicolon,
            "Expect ';' after variable declaration.",
        );
        if global {
            let global = self.global(&name);
            let src = self.take_operand();
            self.emit(Op::DefineGlobal { src, global });
        } else {
            self.define_local();
            self.box_last_local();
        }
    }

    /// Declares the name of a function or class, which its own body may use.
    fn declare_late(&mut self, name: &Rc<str>) -> Target {
        if self.is_global_scope() {
            return Target::Global(self.global(name));
        }
        self.declare_local(name, true);
        self.define_local();
        let reg = self.push();
        match self.last_local() {
            (_, true) => {
                self.emit(Op::NewBox { reg });
                Target::Box(reg)
            }
            _ => Target::Register(reg),
        }
    }

    /// Emits `make` with the register that the declared value is to be put into, and puts it where
    /// it belongs.
    fn define_late(&mut self, target: &Target, make: impl FnOnce(Reg) -> Op) {
        if let Target::Register(dst) = *target {
            self.emit(make(dst));
            return;
        }
        let src = self.push();
        self.emit(make(src));
        match *target {
            Target::Global(global) => self.emit(Op::DefineGlobal { src, global }),
            Target::Box(dst) => self.emit(Op::SetBox { dst, src }),
            Target::Register(_) => {}
        }
        self.pop();
    }

    fn function_declaration(&mut self) {
        let name = self.identifier("Expect function name.");
        let target = self.declare_late(&name);
        let index = self.function_body(FunctionKind::Function, &name);
        self.define_late(&target, |dst| Op::Closure { dst, index });
    }

    /// Compiles parameters and body; the function's number among those of the function around it.
    fn function_body(&mut self, kind: FunctionKind, name: &Rc<str>) -> u16 {
        self.functions.push(Function::new(kind, Some(name.clone())));
        self.begin_scope();
        let callee = if kind == FunctionKind::Function {
            ""
        } else {
            "this"
        };
        self.declare_local(&callee.into(), false);
        self.define_local();
        self.reserve_callee();
        self.expect(TokenKind::LeftParen, "Expect '(' after function name.");
        self.parameters();
        self.expect(TokenKind::RightParen, "Expect ')' after parameters.");
        for reg in self.boxed_registers() {
            self.emit(Op::Box { reg });
        }
        self.expect(TokenKind::LeftBrace, "Expect '{' before function body.");
        self.nested(Self::block);
        let proto = self.finish_function();
        self.functions.pop();
        self.add_function(proto)
    }

    fn parameters(&mut self) {
        if self.check(TokenKind::RightParen) {
            return;
        }
        loop {
            let arity = self.function().proto.arity;
            if arity == MAX_PARAMETERS {
                self.error_at_current(Mistake::TooManyParameters);
            }
            let name = self.identifier("Expect parameter name.");
            self.function().proto.arity = arity.saturating_add(1);
            self.declare_local(&name, false);
            self.define_local();
            self.push();
            if !self.take(TokenKind::Comma) || self.panicking {
                return;
            }
        }
    }

    fn class_declaration(&mut self) {
        let name = self.identifier("Expect class name.");
        let target = self.declare_late(&name);
        let index = self.name(&name);
        let mut has_superclass = false;
        if self.take(TokenKind::Less) {
            let superclass_name = self.identifier("Expect superclass name.");
            if superclass_name == name {
                self.error(Mistake::InheritsFromItself(name.to_string()));
            }
            has_superclass = true;
            self.begin_scope();
            self.declare_local(&"super".into(), false);
            self.get_variable(&superclass_name);
            self.define_local();
            let superclass = self.top();
            self.emit(Op::Subclass {
                name: index,
                superclass,
            });
        } else {
            self.emit(Op::Class { name: index });
        }
        self.classes.push(ClassScope {
            has_superclass,
            fields: HashSet::new(),
        });
        self.expect(TokenKind::LeftBrace, "Expect '{' before class body.");
        while !self.check(TokenKind::RightBrace) && !self.check(TokenKind::EndOfFile) {
            self.method();
        }
        self.expect(TokenKind::RightBrace, "Expect '}' after class body.");
        let class = self.classes.pop();
        let fields = class.map_or(0, |class| class.fields.len().min(MAX_ROOM) as u16);
        if has_superclass {
            self.end_scope();
        }
        self.define_late(&target, |dst| Op::EndClass { dst, fields });
    }

    fn method(&mut self) {
        let name = self.identifier("Expect method name.");
        if self.panicking {
            // Otherwise a body without methods would not end.
            self.advance();
        }
        let kind = if &*name == "init" {
            FunctionKind::Initializer
        } else {
            FunctionKind::Method
        };
        let index = self.function_body(kind, &name);
        let src = self.push();
        self.emit(Op::Closure { dst: src, index });
        let name = self.name(&name);
        self.emit(Op::Method { name, src });
        self.pop();
    }

    // ---- statements -----------------------------------------------------------------------------

    fn expression_statement(&mut self) {
        self.expression();
        self.expect(TokenKind::Semicolon, "Expect ';' after expression.");
        self.discard();
    }

    fn print_statement(&mut self) {
        self.expression();
        self.expect(TokenKind::Semicolon, "Expect ';' after value.");
        let src = self.take_operand();
        self.emit(Op::Print { src });
    }

    fn return_statement(&mut self) {
        let kind = self.function().kind;
        if kind == FunctionKind::Script {
            self.error(Mistake::TopLevelReturn);
        }
        if self.take(TokenKind::Semicolon) {
            self.emit_return();
            return;
        }
        if kind == FunctionKind::Initializer {
            self.error(Mistake::InitializerReturn);
        }
        self.expression();
        self.expect(TokenKind::Semicolon, "Expect ';' after return value.");
        let src = self.take_operand();
        self.emit(Op::Return { src });
    }

    fn if_statement(&mut self) {
        self.expect(TokenKind::LeftParen, "Expect '(' after 'if'.");
        self.expression();
        self.expect(TokenKind::RightParen, "Expect ')' after condition.");
        let otherwise = self.emit_jump_unless();
        self.statement();
        if self.take(TokenKind::Else) {
            let end = self.emit_jump(Op::Jump { by: 0 });
            self.land(otherwise);
            self.statement();
            self.land(end);
        } else {
            self.land(otherwise);
        }
    }

    fn while_statement(&mut self) {
        let start = self.start_loop();
        self.expect(TokenKind::LeftParen, "Expect '(' after 'while'.");
        self.expression();
        self.expect(TokenKind::RightParen, "Expect ')' after condition.");
        let exit = self.emit_jump_unless();
        self.statement();
        self.emit_loop(start);
        self.land(exit);
    }

    fn for_statement(&mut self) {
        self.begin_scope();
        self.expect(TokenKind::LeftParen, "Expect '(' after 'for'.");
        if self.take(TokenKind::Var) {
            self.variable_declaration();
        } else if !self.take(TokenKind::Semicolon) {
            self.expression_statement();
        }
        let start = self.start_loop();
        let mut exit = None;
        if !self.take(TokenKind::Semicolon) {
            self.expression();
            self.expect(TokenKind::Semicolon, "Expect ';' after loop condition.");
            exit = Some(self.emit_jump_unless());
        }
        let mut increment = None;
        if !self.take(TokenKind::RightParen) {
            // It runs after the body, so it is compiled again there; here its code is thrown away.
            increment = Some(self.place);
            let code = self.here();
            self.expression();
            self.discard();
            self.rewind_code(code);
            self.expect(TokenKind::RightParen, "Expect ')' after for clauses.");
        }
        self.statement();
        if let Some(place) = increment
            && self.errors.is_empty()
        {
            let after = std::mem::replace(&mut self.place, place);
            self.expression();
            self.discard();
            self.place = after;
        }
        self.emit_loop(start);
        if let Some(exit) = exit {
            self.land(exit);
        }
        self.end_scope();
    }
}
