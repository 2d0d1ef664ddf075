//! What must not compile, and what the compiler says about it; and what must.
//!
//! After a change of a message: `TRYBUILD=overwrite cargo test --test ui`, and read the difference.

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
    #[cfg(feature = "sched")]
    cases.compile_fail("tests/ui/fail/sched/*.rs");
}
