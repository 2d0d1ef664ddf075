//! What must not compile, with the compiler's message, and what must compile.
//!
//! After a change of a message, run `TRYBUILD=overwrite cargo test --test ui`, and read the
//! difference.

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
    #[cfg(feature = "sched")]
    cases.compile_fail("tests/ui/fail/sched/*.rs");
}
