//! The derive's expansion of any type: it never panics, what it writes is Rust, a type that follows
//! the rules is not refused, and every field of it that must be traced is.

use std::fmt::Write;

use arbitrary::Arbitrary;
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};

use crate::Case;
use crate::attr::Container;
use crate::bound::Bounds;
use crate::diag::Diag;
use crate::expand;
use crate::input::Input;

/// One field's type.
#[derive(Arbitrary, Clone, Debug)]
pub enum Op {
    /// A number, text, or another type without parameters, by number.
    Plain(u8),
    /// A type parameter, by number.
    Param(u8),
    /// `Gc<'gc, _>`.
    Gc(Box<Op>),
    /// `Weak<'gc, _>`.
    Weak(Box<Op>),
    /// `GcCell<'gc, _>`.
    Cell(Box<Op>),
    /// A container of one, by number.
    Of(u8, Box<Op>),
    /// A tuple of two.
    Pair(Box<Op>, Box<Op>),
    /// An array.
    Array(Box<Op>, u8),
    /// `PhantomData<_>`.
    Phantom(Box<Op>),
    /// `fn(_) -> _`, with neither naming the lifetime.
    Function(u8, u8),
    /// The type itself, behind a box.
    Own,
    /// An associated type of a parameter, by number.
    Item(u8),
}

/// A field: its type, and whether it is skipped.
#[derive(Arbitrary, Clone, Debug)]
pub struct Field(pub Op, pub bool);

/// A type.
#[derive(Arbitrary, Clone, Debug)]
pub struct Shape {
    /// Whether it has the lifetime.
    pub branded: bool,
    /// How many type parameters.
    pub params: u8,
    /// Whether it has a const parameter.
    pub constant: bool,
    /// Whether its fields have names.
    pub named: bool,
    /// Whether it is an enum, with a variant for each list of fields; a struct has the first list.
    pub variants: Option<Vec<Vec<Field>>>,
    /// The fields of a struct.
    pub fields: Vec<Field>,
    /// Whether there is a where clause.
    pub bounded: bool,
}

/// See the module.
#[derive(Arbitrary, Clone, Debug)]
pub enum Program {
    /// Any text.
    Text(String),
    /// A type by the rules.
    Shape(Shape),
}

const PLAIN: [&str; 8] = [
    "u8",
    "String",
    "()",
    "::std::sync::Arc<str>",
    "&'static str",
    "Root<u8>",
    "[u64; 3]",
    "r#type::Name",
];
const CONTAINERS: [&str; 8] = [
    "Vec",
    "Option",
    "Box",
    "GcLock",
    "std::collections::VecDeque",
    "Box<[",
    "Result<u8, ",
    "Own_",
];
const PARAMS: [&str; 3] = ["T", "r#U", "TTo"];

/// Writes a shape as Rust.
struct Writer<'a> {
    shape: &'a Shape,
    text: String,
    /// Types nested so far.
    depth: usize,
}

impl Writer<'_> {
    fn params(&self) -> usize {
        usize::from(self.shape.params % 4)
    }

    fn param(&self, n: u8) -> &'static str {
        match self.params() {
            0 => "u16",
            count => PARAMS[usize::from(n) % count],
        }
    }

    fn brand(&self) -> Option<&'static str> {
        self.shape.branded.then_some("'gc, ")
    }

    fn wrapped(&mut self, before: &str, inner: &Op, after: &str) {
        self.text.push_str(before);
        self.ty(inner);
        self.text.push_str(after);
    }

    fn ty(&mut self, op: &Op) {
        self.depth += 1;
        let deep = self.depth > 12;
        match op {
            _ if deep => self.text.push_str("u8"),
            Op::Plain(n) => self.text.push_str(PLAIN[usize::from(*n) % PLAIN.len()]),
            Op::Param(n) => self.text.push_str(self.param(*n)),
            Op::Gc(inner) | Op::Weak(inner) | Op::Cell(inner) => match self.brand() {
                None => self.ty(inner),
                Some(brand) => {
                    let name = match op {
                        Op::Gc(_) => "Gc",
                        Op::Weak(_) => "::greywave::Weak",
                        _ => "greywave::GcCell",
                    };
                    self.wrapped(&format!("{name}<{brand}"), inner, ">");
                }
            },
            Op::Of(n, inner) => match CONTAINERS[usize::from(*n) % CONTAINERS.len()] {
                "Box<[" => self.wrapped("Box<[", inner, "]>"),
                "Result<u8, " => self.wrapped("Result<u8, ", inner, ">"),
                name => self.wrapped(&format!("{name}<"), inner, ">"),
            },
            Op::Pair(a, b) => {
                self.wrapped("(", a, ", ");
                self.wrapped("", b, ")");
            }
            Op::Array(inner, n) => {
                let len = if self.shape.constant {
                    "N".to_owned()
                } else {
                    n.to_string()
                };
                self.wrapped("[", inner, &format!("; {len}]"));
            }
            Op::Phantom(inner) => self.wrapped("std::marker::PhantomData<", inner, ">"),
            Op::Function(a, b) => {
                let (a, b) = (self.param(*a), self.param(*b));
                let _ = write!(self.text, "fn({a}) -> {b}");
            }
            Op::Own => {
                let args = self.args();
                let _ = write!(self.text, "Option<Box<Name{args}>>");
            }
            Op::Item(n) => {
                let param = self.param(*n);
                let _ = write!(self.text, "<{param} as Iterator>::Item");
            }
        }
        self.depth -= 1;
    }

    fn args(&self) -> String {
        let mut args: Vec<&str> = Vec::new();
        args.extend(self.shape.branded.then_some("'gc"));
        args.extend(&PARAMS[..self.params()]);
        args.extend(self.shape.constant.then_some("N"));
        if args.is_empty() {
            String::new()
        } else {
            format!("<{}>", args.join(", "))
        }
    }

    fn fields(&mut self, fields: &[Field]) {
        self.text.push_str(if self.shape.named { "{" } else { "(" });
        for (n, Field(ty, skip)) in fields.iter().take(8).enumerate() {
            if *skip {
                self.text.push_str("#[trace(skip)] ");
            }
            if self.shape.named {
                let _ = write!(self.text, "field{n}: ");
            }
            self.ty(ty);
            self.text.push_str(", ");
        }
        self.text.push_str(if self.shape.named { "}" } else { ")" });
    }

    fn write(mut self) -> String {
        let shape = self.shape;
        let parameters = self.args().replace("N>", "const N: usize = 3>");
        let kind = if shape.variants.is_some() {
            "enum"
        } else {
            "struct"
        };
        let _ = write!(self.text, "{kind} Name{parameters} ");
        let clause = if shape.bounded && self.params() > 0 {
            "where T: Clone + 'static "
        } else {
            ""
        };
        match &shape.variants {
            Some(variants) => {
                let _ = write!(self.text, "{clause}{{");
                for (n, fields) in variants.iter().take(6).enumerate() {
                    let _ = write!(self.text, "V{n} ");
                    self.fields(fields);
                    self.text.push_str(", ");
                }
                self.text.push('}');
            }
            None if shape.named => {
                self.text.push_str(clause);
                self.fields(&shape.fields);
            }
            None => {
                self.fields(&shape.fields);
                let _ = write!(self.text, " {clause};");
            }
        }
        self.text
    }
}

/// What the derive writes; whether it refused the type.
fn expand(input: &syn::DeriveInput) -> (syn::File, bool) {
    let mut diag = Diag::default();
    let container = Container::read(&input.attrs, &mut diag);
    let greywave = container.greywave.clone();
    let ours = Input::read(input, container, &mut diag);
    let bounds = ours
        .as_ref()
        .map(|ours| (ours, Bounds::of(ours, &mut diag)));
    let (tokens, refused) = match (bounds, diag.into_compile_errors()) {
        (Some((ours, bounds)), None) => (expand::implementations(ours, &bounds), false),
        (_, errors) => (expand::refused(input, &greywave, errors), true),
    };
    let text = tokens.to_string();
    match syn::parse2(tokens) {
        Ok(file) => (file, refused),
        Err(error) => panic!("what the derive wrote is not Rust: {error}: {text}"),
    }
}

/// Counts the calls of `trace` in the function of that name.
#[derive(Default)]
struct TraceCalls {
    inside: bool,
    calls: usize,
}

impl<'ast> Visit<'ast> for TraceCalls {
    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.inside = function.sig.ident == "trace";
        visit::visit_impl_item_fn(self, function);
        self.inside = false;
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(path) = &*call.func {
            let last = path.path.segments.last();
            self.calls += usize::from(self.inside && last.is_some_and(|s| s.ident == "trace"));
        }
        visit::visit_expr_call(self, call);
    }
}

/// Whether a skipped or traced field is what the rules want, and how many are traced.
fn traced_fields(input: &syn::DeriveInput) -> usize {
    let traced =
        |field: &&&syn::Field| field.attrs.is_empty() && !matches!(field.ty, syn::Type::BareFn(_));
    fields(input).iter().filter(traced).count()
}

fn fields(input: &syn::DeriveInput) -> Vec<&syn::Field> {
    match &input.data {
        syn::Data::Struct(data) => data.fields.iter().collect(),
        syn::Data::Enum(data) => data.variants.iter().flat_map(|v| &v.fields).collect(),
        syn::Data::Union(_) => Vec::new(),
    }
}

/// A skipped field names a parameter that a field that is not skipped names too: the one stays as
/// it is, the other is rebranded with the type. Other shapes have nothing to refuse.
fn may_be_refused(input: &syn::DeriveInput) -> bool {
    let fields = fields(input);
    let names = |name: &syn::Ident, skipped: bool| {
        fields
            .iter()
            .filter(|field| field.attrs.is_empty() != skipped)
            .any(|field| mentions(field.ty.to_token_stream(), name))
    };
    input
        .generics
        .type_params()
        .any(|param| names(&param.ident, true) && names(&param.ident, false))
}

fn mentions(tokens: TokenStream, name: &syn::Ident) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == *name,
        TokenTree::Group(group) => mentions(group.stream(), name),
        _ => false,
    })
}

fn check_shape(shape: &Shape) {
    let text = Writer {
        shape,
        text: String::new(),
        depth: 0,
    }
    .write();
    let input: syn::DeriveInput =
        syn::parse_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let (file, refused) = expand(&input);
    if refused {
        assert!(may_be_refused(&input), "refused: {text}");
        return;
    }
    let mut calls = TraceCalls::default();
    calls.visit_file(&file);
    assert_eq!(calls.calls, traced_fields(&input), "{text}");
    let implements = |name: &str| {
        file.items.iter().any(|item| match item {
            syn::Item::Impl(syn::ItemImpl {
                trait_: Some((_, path, _)),
                ..
            }) => path.segments.last().is_some_and(|last| last.ident == name),
            _ => false,
        })
    };
    assert!(implements("Trace") && implements("Rebrand"), "{text}");
}

impl Case for Program {
    const MODULE: &'static str = "derive_input";

    fn run(&self) {
        match self {
            Self::Text(text) => {
                if let Ok(input) = syn::parse_str::<syn::DeriveInput>(text) {
                    expand(&input);
                }
            }
            Self::Shape(shape) => check_shape(shape),
        }
    }
}
