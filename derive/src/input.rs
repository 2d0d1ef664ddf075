//! A type as the derive sees it, and what is refused at once.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::visit::{self, Visit};
use syn::{
    Data, DeriveInput, GenericArgument, Generics, Index, Lifetime, Member, PathArguments, Type,
    TypePath,
};

use crate::attr::{self, Container};
use crate::diag::Diag;

pub(crate) struct Input {
    pub(crate) ident: Ident,
    pub(crate) container: Container,
    /// The parameters, without attributes and defaults.
    pub(crate) generics: Generics,
    /// The type's lifetime, if it has one: the brand of the `Gc`s inside.
    pub(crate) brand: Option<Lifetime>,
    pub(crate) shape: Shape,
}

pub(crate) enum Shape {
    Struct(Vec<Field>),
    Enum(Vec<(Ident, Vec<Field>)>),
}

pub(crate) struct Field {
    pub(crate) member: Member,
    pub(crate) ty: Type,
    pub(crate) skip: bool,
}

impl Input {
    /// Reads the type. What cannot be read is reported in `diag`. Returns nothing if the meaning is
    /// unclear.
    pub(crate) fn read(input: &DeriveInput, container: Container, diag: &mut Diag) -> Option<Self> {
        if let Some(attr) = attr::packed(&input.attrs) {
            diag.refuse(
                attr,
                "a packed type cannot be traced: the collector reads fields by reference, and these are not aligned\n\
                 help: remove `packed`, or keep the packed part in a field of its own marked `#[trace(skip)]`",
            );
        }
        let mut generics = input.generics.clone();
        strip(&mut generics);
        let brand = brand(&generics, diag);
        let shape = match &input.data {
            Data::Struct(data) => Shape::Struct(fields(&data.fields, diag)),
            Data::Enum(data) => Shape::Enum(
                data.variants
                    .iter()
                    .map(|variant| {
                        attr::refuse_on_variant(&variant.attrs, diag);
                        (variant.ident.clone(), fields(&variant.fields, diag))
                    })
                    .collect(),
            ),
            Data::Union(data) => {
                diag.refuse(
                    data.union_token,
                    "a union cannot be traced: nothing says which of its fields is alive\nhelp: use an enum",
                );
                return None;
            }
        };
        let ours = Self {
            ident: input.ident.clone(),
            container,
            generics,
            brand,
            shape,
        };
        for field in ours.fields().filter(|field| !field.skip) {
            let mut refusal = Refusal {
                brand: ours.brand.as_ref(),
                diag: &mut *diag,
            };
            refusal.visit_type(&field.ty);
        }
        Some(ours)
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field> {
        let all: Vec<_> = match &self.shape {
            Shape::Struct(fields) => fields.iter().collect(),
            Shape::Enum(variants) => variants.iter().flat_map(|(_, fields)| fields).collect(),
        };
        all.into_iter()
    }
}

/// An implementation repeats the parameters, but not their attributes and defaults.
fn strip(generics: &mut Generics) {
    for param in &mut generics.params {
        match param {
            syn::GenericParam::Lifetime(param) => param.attrs.clear(),
            syn::GenericParam::Type(param) => {
                param.attrs.clear();
                param.eq_token = None;
                param.default = None;
            }
            syn::GenericParam::Const(param) => {
                param.attrs.clear();
                param.eq_token = None;
                param.default = None;
            }
        }
    }
}

fn brand(generics: &Generics, diag: &mut Diag) -> Option<Lifetime> {
    let mut lifetimes = generics.lifetimes();
    let brand = lifetimes.next()?.lifetime.clone();
    for second in lifetimes {
        diag.refuse(
            &second.lifetime,
            format!(
                "a heap type has one lifetime, and this one has `{brand}` already: it stands for the heap, in every \
                 `Gc` and cell inside\nhelp: own what `{}` would borrow, or use `{brand}` for both",
                second.lifetime
            ),
        );
    }
    Some(brand)
}

fn fields(fields: &syn::Fields, diag: &mut Diag) -> Vec<Field> {
    let each = fields.iter().enumerate().map(|(index, field)| Field {
        member: match &field.ident {
            Some(ident) => Member::Named(ident.clone()),
            None => Member::Unnamed(Index::from(index)),
        },
        ty: field.ty.clone(),
        skip: attr::is_skipped(&field.attrs, diag),
    });
    each.collect()
}

/// The field types that no bound can make right.
struct Refusal<'a> {
    brand: Option<&'a Lifetime>,
    diag: &'a mut Diag,
}

impl Refusal<'_> {
    fn gc(&self) -> String {
        self.brand.map_or("'gc".into(), ToString::to_string)
    }
}

impl Visit<'_> for Refusal<'_> {
    fn visit_type(&mut self, ty: &Type) {
        match ty {
            Type::Reference(reference) => match &reference.lifetime {
                Some(lifetime) if lifetime.ident == "static" => {}
                _ => {
                    let message = format!(
                        "a heap object cannot borrow: it may live longer than what the reference points to\n\
                         help: point to another object with `Gc<{}, T>`, or own the value (`Box<T>`, `Box<str>`, \
                         `String`, `Arc<T>`)",
                        self.gc()
                    );
                    self.diag.refuse(ty, message);
                }
            },
            Type::Ptr(_) => {
                let message = format!(
                    "a raw pointer cannot be traced: the collector does not know what it points to\n\
                     help: point to an object with `Gc<{}, T>`; if it points outside the heap, give it a type of your \
                     own that is `Send + Sync`, and mark the field `#[trace(skip)]`",
                    self.gc()
                );
                self.diag.refuse(ty, message);
            }
            Type::BareFn(_) if self.brand.is_some_and(|brand| mentions_lifetime(ty, brand)) => {
                let brand = self.gc();
                let message = format!(
                    "a function pointer cannot name `{brand}`: the object's lifetime changes when it is read through a \
                     root, and the function's does not\n\
                     help: let it work for every lifetime, as in `for<'a> fn(Gc<'a, T>)`"
                );
                self.diag.refuse(ty, message);
            }
            Type::Path(path) if is_borrowing_cow(path) => {
                let message = "a heap object cannot borrow: it may live longer than what the `Cow` borrows\n\
                               help: own the value (`String`, `Box<T>`), or write `Cow<'static, T>`";
                self.diag.refuse(ty, message);
            }
            Type::Path(path) if is_static_gc(path) => {
                let message = "a `Gc` in a heap object has the object's lifetime: `'static` would outlive it\n\
                               help: give the type a lifetime, `struct Node<'gc>`, and write `'gc` here; \
                               outside of the heap, hold a `Root`";
                self.diag.refuse(ty, message);
            }
            // What is behind these is not held by the object.
            Type::BareFn(_) | Type::TraitObject(_) | Type::Macro(_) => {}
            Type::Path(path) if is_opaque(path) => {}
            _ => visit::visit_type(self, ty),
        }
    }
}

/// A pointer or cell of this crate with the brand `'static`, by its name. Under any other name the
/// type checker refuses it.
fn is_static_gc(path: &TypePath) -> bool {
    first_lifetime(path, &["Gc", "GcCell", "GcOnce"])
        .is_some_and(|lifetime| lifetime.ident == "static")
}

/// `std`'s `Cow`, by its name and its two parameters, with a lifetime other than `'static`. The
/// type checker refuses it under any other name.
fn is_borrowing_cow(path: &TypePath) -> bool {
    let args = path.path.segments.last().map(|last| &last.arguments);
    let two = matches!(args, Some(PathArguments::AngleBracketed(args)) if args.args.len() == 2);
    two && first_lifetime(path, &["Cow"]).is_some_and(|lifetime| lifetime.ident != "static")
}

fn first_lifetime<'a>(path: &'a TypePath, names: &[&str]) -> Option<&'a Lifetime> {
    let last = path.path.segments.last()?;
    match &last.arguments {
        PathArguments::AngleBracketed(args) if names.iter().any(|name| last.ident == name) => {
            match args.args.first()? {
                GenericArgument::Lifetime(lifetime) => Some(lifetime),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Types of `std` and of this crate, by their names, whose parameters a heap object does not hold:
/// the parameters are phantom, or the type requires that they hold no `Gc`. A rebranding does not
/// change such a type. A name only guides the bounds; the type checker proves what is guessed here
/// ([`crate::expand`]).
pub(crate) fn is_opaque(path: &TypePath) -> bool {
    const NAMES: &[&str] = &[
        "PhantomData",
        "Arc",
        "AtomicPtr",
        "BuildHasherDefault",
        "Cow",
        "JoinHandle",
        "Mutex",
        "OnceLock",
        "Root",
        "RwLock",
        "Sender",
        "SyncSender",
        "WeakRoot",
    ];
    let last = path.path.segments.last();
    path.qself.is_none() && last.is_some_and(|last| NAMES.iter().any(|name| last.ident == name))
}

/// Whether two identifiers are the same name: `r#T` is `T`.
pub(crate) fn same(left: &Ident, right: &Ident) -> bool {
    left == right || left.unraw() == right.unraw()
}

/// A field that is a function pointer holds nothing. No impl could cover all function pointers,
/// such as `for<'a> fn(Gc<'a, T>)`.
pub(crate) fn is_function(ty: &Type) -> bool {
    match ty {
        Type::Group(group) => is_function(&group.elem),
        Type::Paren(paren) => is_function(&paren.elem),
        Type::BareFn(_) => true,
        _ => false,
    }
}

/// The name decides; the type checker proves that the field's type is one.
pub(crate) fn is_phantom(ty: &Type) -> bool {
    match ty {
        Type::Group(group) => is_phantom(&group.elem),
        Type::Paren(paren) => is_phantom(&paren.elem),
        Type::Path(path) => {
            is_opaque(path)
                && path
                    .path
                    .segments
                    .last()
                    .is_some_and(|last| last.ident == "PhantomData")
        }
        _ => false,
    }
}

/// Whether `lifetime` is named anywhere in `part`.
pub(crate) fn mentions_lifetime(part: &impl ToTokens, lifetime: &Lifetime) -> bool {
    any_token(part.to_token_stream(), &mut |before, token| {
        let quoted = matches!(before, Some(TokenTree::Punct(punct)) if punct.as_char() == '\'');
        quoted && matches!(token, TokenTree::Ident(ident) if same(ident, &lifetime.ident))
    })
}

/// Whether one of `params` is named anywhere in `part`.
pub(crate) fn mentions_param(part: &impl ToTokens, params: &[&Ident]) -> bool {
    any_token(part.to_token_stream(), &mut |before, token| {
        let quoted = matches!(before, Some(TokenTree::Punct(punct)) if punct.as_char() == '\'');
        !quoted
            && matches!(token, TokenTree::Ident(ident) if params.iter().any(|param| same(param, ident)))
    })
}

/// Whether `is` holds for a token; it gets the token and the one before.
pub(crate) fn any_token(
    tokens: TokenStream,
    is: &mut dyn FnMut(Option<&TokenTree>, &TokenTree) -> bool,
) -> bool {
    let mut before = None;
    for token in tokens {
        let found = match &token {
            TokenTree::Group(group) => any_token(group.stream(), is),
            _ => is(before.as_ref(), &token),
        };
        if found {
            return true;
        }
        before = Some(token);
    }
    false
}
