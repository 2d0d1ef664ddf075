//! The compiler: from source text to [`Proto`]s in one pass, without a syntax tree.
//!
//! It runs twice over a source. The first run is a survey: which variables are captured by
//! closures, and which are assigned to after their declaration. The second makes the code, and
//! knows at a variable's declaration whether it needs a box on the heap (see `scope.rs`).

mod code;
mod expr;
mod scope;
mod stmt;

use std::collections::HashSet;
use std::rc::Rc;

use crate::dialect::Dialect;
use crate::error::{CompileError, Mistake};
use crate::proto::Proto;
use crate::scan::{Scanner, Token, TokenKind};
pub(crate) use code::MAX_REGISTERS;
use code::{Function, FunctionKind};

/// Expressions and statements inside each other; a level takes a few hundred bytes of the machine
/// stack.
const MAX_NESTING: usize = 400;

/// Compiles a script.
///
/// # Errors
/// Every mistake that was found, in the order of the source.
pub(crate) fn compile(source: &str, dialect: Dialect) -> Result<Proto, Vec<CompileError>> {
    let mut survey = Compiler::new(source, dialect, Facts::default());
    survey.script();
    if !survey.errors.is_empty() {
        return Err(survey.errors);
    }
    let facts = std::mem::take(&mut survey.found);
    let mut compiler = Compiler::new(source, dialect, facts);
    let proto = compiler.script();
    if compiler.errors.is_empty() {
        Ok(proto)
    } else {
        Err(compiler.errors)
    }
}

/// What is known of local variables, each named by its number in the order of declaration.
#[derive(Debug, Default)]
struct Facts {
    captured: HashSet<u32>,
    assigned: HashSet<u32>,
}

/// Where the parser is.
#[derive(Clone, Copy, Debug)]
struct Place<'src> {
    scanner: Scanner<'src>,
    previous: Token<'src>,
    current: Token<'src>,
}

/// The class whose body is being compiled.
#[derive(Debug)]
struct ClassScope {
    has_superclass: bool,
    /// The fields that its methods set on `this`: how much room an object will want.
    fields: HashSet<Rc<str>>,
}

#[derive(Debug)]
struct Compiler<'src> {
    place: Place<'src>,
    dialect: Dialect,
    /// Of the survey; empty while it runs.
    facts: Facts,
    /// Of this run.
    found: Facts,
    /// How many locals have been declared.
    declared: u32,
    errors: Vec<CompileError>,
    /// After an error, until the next statement.
    panicking: bool,
    /// Nothing more is reported.
    gave_up: bool,
    nesting: usize,
    /// The functions around this point, the innermost last; never empty.
    functions: Vec<Function>,
    classes: Vec<ClassScope>,
    /// Stops an expression before the token at this offset.
    stop_before: Option<usize>,
}

impl<'src> Compiler<'src> {
    fn new(source: &'src str, dialect: Dialect, facts: Facts) -> Self {
        let nothing = Token {
            kind: TokenKind::EndOfFile,
            text: "",
            line: 1,
            offset: 0,
        };
        Self {
            place: Place {
                scanner: Scanner::new(source),
                previous: nothing,
                current: nothing,
            },
            dialect,
            facts,
            found: Facts::default(),
            declared: 0,
            errors: Vec::new(),
            panicking: false,
            gave_up: false,
            nesting: 0,
            functions: vec![Function::new(FunctionKind::Script, None)],
            classes: Vec::new(),
            stop_before: None,
        }
    }

    fn script(&mut self) -> Proto {
        self.advance();
        // Register 0 holds the script's own closure.
        self.reserve_callee();
        while !self.take(TokenKind::EndOfFile) {
            self.declaration();
        }
        self.finish_function()
    }

    // ---- tokens ---------------------------------------------------------------------------------

    fn advance(&mut self) {
        self.place.previous = self.place.current;
        loop {
            self.place.current = self.place.scanner.next_token();
            match self.place.current.kind {
                TokenKind::Unexpected => self.error_at_current(Mistake::UnexpectedCharacter),
                TokenKind::Unterminated => self.error_at_current(Mistake::UnterminatedString),
                _ => return,
            }
        }
    }

    fn check(&self, kind: TokenKind) -> bool {
        self.place.current.kind == kind
    }

    fn take(&mut self, kind: TokenKind) -> bool {
        let taken = self.check(kind);
        if taken {
            self.advance();
        }
        taken
    }

    fn expect(&mut self, kind: TokenKind, message: &'static str) {
        if !self.take(kind) {
            self.error_at_current(Mistake::Expected(message));
        }
    }

    fn identifier(&mut self, message: &'static str) -> Rc<str> {
        self.expect(TokenKind::Identifier, message);
        self.place.previous.text.into()
    }

    // ---- errors ---------------------------------------------------------------------------------

    fn error(&mut self, mistake: Mistake) {
        self.error_at(self.place.previous, mistake);
    }

    fn error_at_current(&mut self, mistake: Mistake) {
        self.error_at(self.place.current, mistake);
    }

    fn error_at(&mut self, token: Token<'src>, mistake: Mistake) {
        if self.panicking || self.gave_up {
            return;
        }
        self.panicking = true;
        let at_end = token.kind == TokenKind::EndOfFile;
        self.errors.push(CompileError {
            line: token.line,
            token: (!at_end).then(|| token.text.to_owned()),
            mistake,
        });
    }

    /// Skips to what looks like the start of a statement.
    fn synchronize(&mut self) {
        self.panicking = false;
        while !self.check(TokenKind::EndOfFile) {
            if self.place.previous.kind == TokenKind::Semicolon {
                return;
            }
            match self.place.current.kind {
                TokenKind::Class
                | TokenKind::Fun
                | TokenKind::Var
                | TokenKind::For
                | TokenKind::If
                | TokenKind::While
                | TokenKind::Print
                | TokenKind::Return => return,
                _ => self.advance(),
            }
        }
    }

    /// Runs `f` one level deeper, unless that is too deep.
    fn nested(&mut self, f: impl FnOnce(&mut Self)) {
        if self.nesting == MAX_NESTING {
            self.error_at_current(Mistake::TooDeep);
            // Nothing more of this source is looked at: each level would complain again.
            self.gave_up = true;
            while !self.check(TokenKind::EndOfFile) {
                self.advance();
            }
            return;
        }
        self.nesting += 1;
        f(self);
        self.nesting -= 1;
    }

    // ---- the function being compiled ------------------------------------------------------------

    fn function(&mut self) -> &mut Function {
        let last = self.functions.len() - 1;
        &mut self.functions[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Op;

    fn code(source: &str) -> Vec<Op> {
        compile(source, Dialect::Book).expect("it compiles").code
    }

    fn errors(source: &str) -> Vec<String> {
        let errors = compile(source, Dialect::Book).expect_err("it does not compile");
        errors.iter().map(|e| e.to_text(Dialect::Book)).collect()
    }

    #[test]
    fn operands_that_are_locals_are_read_in_place() {
        let code = code("{ var a = 1; var b = 2; a = a + b; }");
        assert!(
            code.iter()
                .any(|op| matches!(op, Op::Add { dst: 1, a: 1, b: 2 })),
            "{code:?}"
        );
        assert!(!code.iter().any(|op| matches!(op, Op::Move { .. })));
    }

    #[test]
    fn an_operand_that_changes_meanwhile_is_copied_first() {
        let code = code("{ var a = 1; print a + (a = 2); }");
        assert!(
            code.iter()
                .any(|op| matches!(op, Op::Move { dst: 2, src: 1 })),
            "{code:?}"
        );
    }

    #[test]
    fn a_condition_is_one_instruction() {
        let code = code("{ var i = 0; while (i < 10) i = i + 1; }");
        assert!(
            code.iter().any(|op| matches!(
                op,
                Op::UnlessLessNumber {
                    a: 1,
                    number: 10,
                    ..
                }
            )),
            "{code:?}"
        );
    }

    // A scanner's error directly after another error is part of the same panic, hence the statement
    // between.
    #[test]
    fn every_statement_may_report_one_error() {
        assert_eq!(
            errors("var 1;\nprint;\n2;\"x"),
            [
                "[line 1] Error at '1': Expect variable name.",
                "[line 2] Error at ';': Expect expression.",
                "[line 3] Error: Unterminated string."
            ]
        );
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        for (open, close) in [("(", ")"), ("{", "}"), ("!", ""), ("fun f() {", "}")] {
            let source = format!("{}1;{}", open.repeat(100_000), close.repeat(100_000));
            assert!(errors(&source)[0].contains("Too deeply nested"), "{open}");
        }
    }
}
