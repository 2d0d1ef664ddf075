//! In whose words the interpreter speaks.

/// The wording of errors and of printed objects, and one order of evaluation.
///
/// The two differ in nothing else, so the test suite of either can be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// "Crafting Interpreters".
    #[default]
    Book,
    /// The `loxcraft` crate: names types in its errors, prints `<class Foo>` for a class, and
    /// evaluates the value of a field's assignment before the object.
    Loxcraft,
}
