//! What can go wrong in a Lox program, and the two ways of saying it.

use std::fmt;

use crate::dialect::Dialect;

/// Lines of a stack trace that are told, of either end.
const MAX_TRACE: usize = 32;

/// A mistake that the compiler found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// The line of the token, from 1.
    pub line: u32,
    /// The token's text; `None` at the end of the source.
    pub token: Option<String>,
    /// What is wrong with it.
    pub mistake: Mistake,
}

/// The kinds of mistakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Something else had to come here; in the words of the book.
    Expected(&'static str),
    /// What stands before `=` cannot be assigned to.
    InvalidTarget,
    /// No token begins like this.
    UnexpectedCharacter,
    /// A string without its closing quote.
    UnterminatedString,
    /// A second variable of this name in the same scope.
    AlreadyDefined(String),
    /// A variable is used in its own initializer.
    OwnInitializer(String),
    /// `return` outside a function.
    TopLevelReturn,
    /// A value returned from an initializer.
    InitializerReturn,
    /// `this` outside a class.
    ThisOutsideClass,
    /// `super` outside a class.
    SuperOutsideClass,
    /// `super` in a class without a superclass.
    NoSuperclass,
    /// A class that inherits from itself.
    InheritsFromItself(String),
    /// More than 255 arguments.
    TooManyArguments,
    /// More than 255 parameters.
    TooManyParameters,
    /// More than 256 constants in one function.
    TooManyConstants,
    /// More than 256 locals in one function.
    TooManyLocals,
    /// More than 256 captured variables in one function.
    TooManyCaptured,
    /// More names, functions or places of one kind in a function than an instruction can count.
    FunctionTooLarge,
    /// A jump over too much code.
    JumpTooLarge,
    /// A loop around too much code.
    LoopTooLarge,
    /// Expressions, blocks or functions nest too deeply.
    TooDeep,
    /// `spawn` without a call after it.
    SpawnWithoutCall,
}

impl CompileError {
    /// The error as one line of text.
    pub fn to_text(&self, dialect: Dialect) -> String {
        match dialect {
            Dialect::Book => self.in_the_book(),
            Dialect::Loxcraft => self.in_loxcraft(),
        }
    }

    fn in_the_book(&self) -> String {
        let place = match (&self.token, &self.mistake) {
            (_, Mistake::UnexpectedCharacter | Mistake::UnterminatedString) => String::new(),
            (None, _) => " at end".to_owned(),
            (Some(token), _) => format!(" at '{token}'"),
        };
        let message = match &self.mistake {
            Mistake::Expected(message) => message,
            Mistake::InvalidTarget => "Invalid assignment target.",
            Mistake::UnexpectedCharacter => "Unexpected character.",
            Mistake::UnterminatedString => "Unterminated string.",
            Mistake::AlreadyDefined(_) => "Already a variable with this name in this scope.",
            Mistake::OwnInitializer(_) => "Can't read local variable in its own initializer.",
            Mistake::TopLevelReturn => "Can't return from top-level code.",
            Mistake::InitializerReturn => "Can't return a value from an initializer.",
            Mistake::ThisOutsideClass => "Can't use 'this' outside of a class.",
            Mistake::SuperOutsideClass => "Can't use 'super' outside of a class.",
            Mistake::NoSuperclass => "Can't use 'super' in a class with no superclass.",
            Mistake::InheritsFromItself(_) => "A class can't inherit from itself.",
            Mistake::TooManyArguments => "Can't have more than 255 arguments.",
            Mistake::TooManyParameters => "Can't have more than 255 parameters.",
            Mistake::TooManyConstants => "Too many constants in one chunk.",
            Mistake::TooManyLocals => "Too many local variables in function.",
            Mistake::TooManyCaptured => "Too many closure variables in function.",
            Mistake::FunctionTooLarge => "Too much code in one function.",
            Mistake::JumpTooLarge => "Too much code to jump over.",
            Mistake::LoopTooLarge => "Loop body too large.",
            Mistake::TooDeep => "Too deeply nested.",
            Mistake::SpawnWithoutCall => "Expect a call after 'spawn'.",
        };
        format!("[line {}] Error{place}: {message}", self.line)
    }

    fn in_loxcraft(&self) -> String {
        match &self.mistake {
            Mistake::Expected(_) | Mistake::InvalidTarget | Mistake::SpawnWithoutCall => {
                match &self.token {
                    Some(token) => format!("SyntaxError: unexpected {token:?}"),
                    None => "SyntaxError: unexpected end of file".to_owned(),
                }
            }
            Mistake::UnexpectedCharacter => "SyntaxError: unexpected input".to_owned(),
            Mistake::UnterminatedString => "SyntaxError: unterminated string".to_owned(),
            Mistake::AlreadyDefined(name) => format!("NameError: name {name:?} is already defined"),
            Mistake::OwnInitializer(name) => {
                format!("NameError: cannot access variable {name:?} in its own initializer")
            }
            Mistake::TopLevelReturn => "SyntaxError: \"return\" used outside function".to_owned(),
            Mistake::InitializerReturn => {
                "SyntaxError: init() should not return a value".to_owned()
            }
            Mistake::ThisOutsideClass => "SyntaxError: \"this\" used outside class".to_owned(),
            Mistake::SuperOutsideClass => "SyntaxError: \"super\" used outside class".to_owned(),
            Mistake::NoSuperclass => {
                "SyntaxError: \"super\" used in class without a superclass".to_owned()
            }
            Mistake::InheritsFromItself(name) => {
                format!("NameError: class {name:?} inherits from itself")
            }
            Mistake::TooManyArguments => {
                "OverflowError: cannot use more than 256 arguments in a function".to_owned()
            }
            Mistake::TooManyParameters => {
                "OverflowError: cannot define more than 256 parameters in a function".to_owned()
            }
            Mistake::TooManyConstants => {
                "OverflowError: cannot define more than 256 constants in a function".to_owned()
            }
            Mistake::TooManyLocals => {
                "OverflowError: cannot define more than 256 local variables in a function"
                    .to_owned()
            }
            Mistake::TooManyCaptured => {
                "OverflowError: cannot use more than 256 closure variables in a function".to_owned()
            }
            Mistake::JumpTooLarge | Mistake::LoopTooLarge => {
                "OverflowError: jump body is too large".to_owned()
            }
            Mistake::FunctionTooLarge => "OverflowError: function is too large".to_owned(),
            Mistake::TooDeep => "OverflowError: nested too deeply".to_owned(),
        }
    }
}

/// What stopped a running program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeError {
    /// A value of this type was called.
    NotCallable(String),
    /// A function was called with the wrong number of arguments.
    Arity {
        /// The function.
        name: String,
        /// What it takes.
        expected: usize,
        /// What it got.
        got: usize,
    },
    /// A global variable that is not defined.
    UndefinedVariable(String),
    /// An object without this field or method.
    UndefinedProperty {
        /// The name of the object's class.
        class: String,
        /// The name of the property.
        name: String,
    },
    /// A property read on something that has none; `method` if it was to be called.
    NoProperties {
        /// The value's type.
        kind: String,
        /// The name of the property.
        name: String,
        /// Whether the property was to be called.
        method: bool,
    },
    /// A field written on something that has none.
    NoFields {
        /// The value's type.
        kind: String,
        /// The name of the field.
        name: String,
    },
    /// An operator between values of the wrong types.
    Operands {
        /// The operator.
        operator: &'static str,
        /// The type on its left.
        left: String,
        /// The type on its right.
        right: String,
    },
    /// A sign before something that is not a number.
    Operand(String),
    /// A superclass that is a value of this type.
    NotAClass(String),
    /// Too many calls in each other.
    StackOverflow,
    /// The output cannot be written.
    Output(String),
    /// A native function refuses its arguments; the message says why.
    Native(String),
    /// A thread that was joined had stopped with this error.
    Thread(String),
    /// The program is over: this thread was told to stop.
    Stopped,
}

impl RuntimeError {
    /// The error as one line of text.
    pub fn to_text(&self, dialect: Dialect) -> String {
        match dialect {
            Dialect::Book => self.in_the_book(),
            Dialect::Loxcraft => self.in_loxcraft(),
        }
    }

    fn in_the_book(&self) -> String {
        match self {
            Self::NotCallable(_) => "Can only call functions and classes.".to_owned(),
            Self::Arity { expected, got, .. } => {
                format!("Expected {expected} arguments but got {got}.")
            }
            Self::UndefinedVariable(name) => format!("Undefined variable '{name}'."),
            Self::UndefinedProperty { name, .. } => format!("Undefined property '{name}'."),
            Self::NoProperties { method: false, .. } => {
                "Only instances have properties.".to_owned()
            }
            Self::NoProperties { method: true, .. } => "Only instances have methods.".to_owned(),
            Self::NoFields { .. } => "Only instances have fields.".to_owned(),
            Self::Operands { operator: "+", .. } => {
                "Operands must be two numbers or two strings.".to_owned()
            }
            Self::Operands { .. } => "Operands must be numbers.".to_owned(),
            Self::Operand(_) => "Operand must be a number.".to_owned(),
            Self::NotAClass(_) => "Superclass must be a class.".to_owned(),
            Self::StackOverflow => "Stack overflow.".to_owned(),
            Self::Output(message) => format!("Can't write the output: {message}."),
            Self::Native(message) => message.clone(),
            Self::Thread(message) => format!("A thread failed: {message}"),
            Self::Stopped => "Stopped.".to_owned(),
        }
    }

    fn in_loxcraft(&self) -> String {
        match self {
            Self::NotCallable(kind) => format!("TypeError: {kind:?} object is not callable"),
            Self::Arity {
                name,
                expected,
                got,
            } => format!("TypeError: {name}() takes {expected} arguments but {got} were given"),
            Self::UndefinedVariable(name) => format!("NameError: name {name:?} is not defined"),
            Self::UndefinedProperty { class: owner, name }
            | Self::NoProperties {
                kind: owner, name, ..
            }
            | Self::NoFields { kind: owner, name } => {
                format!("AttributeError: {owner:?} object has no attribute {name:?}")
            }
            Self::Operands {
                operator,
                left,
                right,
            } => format!(
                "TypeError: unsupported operand type(s) for {operator}: {left:?} and {right:?}"
            ),
            Self::Operand(kind) => format!("TypeError: unsupported operand type for -: {kind:?}"),
            Self::NotAClass(kind) => {
                format!("TypeError: superclass should be of type \"class\", not {kind:?}")
            }
            Self::StackOverflow => "OverflowError: stack overflow".to_owned(),
            Self::Output(_) => "IOError: unable to write to file: \"stdout\"".to_owned(),
            Self::Native(message) => format!("ValueError: {message}"),
            Self::Thread(message) => format!("ThreadError: {message}"),
            Self::Stopped => "ThreadError: stopped".to_owned(),
        }
    }
}

/// Where a running program was, one line a call, the innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceLine {
    /// The line in the source, from 1.
    pub line: u32,
    /// The function's name; `None` for the script.
    pub function: Option<String>,
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(name) => write!(f, "[line {}] in {name}()", self.line),
            None => write!(f, "[line {}] in script", self.line),
        }
    }
}

/// A program that did not run to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was not compiled; at least one error.
    Compile(Vec<CompileError>),
    /// It was stopped.
    Runtime(RuntimeError, Vec<TraceLine>),
}

impl Failure {
    /// The code that the process exits with, as in the book.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Compile(_) => 65,
            Self::Runtime(..) => 70,
        }
    }

    /// The first error, without the trace.
    pub fn headline(&self, dialect: Dialect) -> String {
        match self {
            Self::Compile(errors) => errors
                .first()
                .map_or_else(String::new, |e| e.to_text(dialect)),
            Self::Runtime(error, _) => error.to_text(dialect),
        }
    }

    /// Everything there is to say, in lines.
    pub fn report(&self, dialect: Dialect) -> String {
        let mut text = String::new();
        let mut say = |line: &dyn fmt::Display| {
            text.push_str(&line.to_string());
            text.push('\n');
        };
        match self {
            Self::Compile(errors) => {
                for error in errors {
                    say(&error.to_text(dialect));
                }
            }
            Self::Runtime(error, trace) => {
                say(&error.to_text(dialect));
                let left_out = trace.len().saturating_sub(2 * MAX_TRACE);
                let first = if left_out == 0 {
                    trace.len()
                } else {
                    MAX_TRACE
                };
                trace[..first].iter().for_each(|line| say(line));
                if left_out > 0 {
                    say(&format!("... {left_out} more"));
                }
                trace[first + left_out..].iter().for_each(|line| say(line));
            }
        }
        text
    }
}
