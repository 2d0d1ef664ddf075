//! The command: exit codes, what goes where, the prompt.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn lox(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lox"))
        .args(args)
        // The history goes into a folder of the test's own.
        .env("HOME", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// Runs `source` from a file: exit code, standard output, standard error.
fn run(name: &str, source: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.lox"));
    std::fs::write(&path, source).expect("a writable folder");
    let path = path.to_string_lossy();
    let output = lox(&[args, &[&path]].concat(), "");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn a_compile_error_exits_with_65_and_runs_nothing() {
    let (code, out, err) = run("compile", "print 1;\nvar a = ;\nprint 1 +;", &[]);
    assert_eq!((code, out.as_str()), (Some(65), ""));
    assert_eq!(
        err,
        "[line 2] Error at ';': Expect expression.\n[line 3] Error at ';': Expect expression.\n"
    );
}

#[test]
fn a_runtime_error_exits_with_70_and_shows_the_calls() {
    let source = "fun inner() {\n  return nil + 1;\n}\nclass A {\n  init() {\n    inner();\n  }\n}\nprint 1;\nA();";
    let (code, out, err) = run("runtime", source, &[]);
    assert_eq!((code, out.as_str()), (Some(70), "1\n"));
    assert_eq!(
        err,
        "Operands must be two numbers or two strings.\n\
         [line 2] in inner()\n[line 6] in init()\n[line 10] in script\n"
    );
}

#[test]
fn deep_recursion_is_an_error_with_a_short_trace() {
    let (code, _, err) = run("deep", "fun f(n) { return f(n + 1) + 1; }\nf(0);", &[]);
    assert_eq!(code, Some(70));
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines[0], "Stack overflow.");
    assert!(lines.len() < 100 && err.contains(" more\n"), "{err}");
    assert_eq!(lines[lines.len() - 1], "[line 2] in script");
}

#[test]
fn an_error_on_a_thread_is_told_there_and_where_it_is_joined() {
    let source = "fun f() { return 1 < nil; }\njoin(spawn f());";
    let (code, _, err) = run("thread", source, &[]);
    assert_eq!(code, Some(70));
    assert_eq!(
        err,
        "Operands must be numbers.\n[line 1] in f()\n[line 2] in spawn()\n\
         A thread failed: Operands must be numbers.\n[line 2] in script\n"
    );
}

#[test]
fn a_program_ends_although_its_threads_do_not() {
    let source = "fun loop() { while (true) {} }\nfun wait() { recv(channel(1)); }\n\
                  spawn loop(); spawn wait(); print \"done\";";
    let (code, out, err) = run("endless", source, &[]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "done\n", ""));
}

#[test]
fn the_heap_tells_its_figures() {
    let (code, _, err) = run("figures", "print 1;", &["--gc-stats"]);
    assert_eq!(code, Some(0));
    assert!(err.contains("cycles ") && err.contains("longest "), "{err}");
}

#[test]
fn the_prompt_keeps_variables_and_survives_errors() {
    let output = lox(
        &[],
        "var a = 1;\nprint b;\nprint 1 +;\nfun f() { return a; }\nprint f() + 1;\n",
    );
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("2\n"));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("Undefined variable 'b'.") && err.contains("Expect expression."));
}

#[test]
fn wrong_arguments_exit_with_64_and_a_missing_file_with_74() {
    assert_eq!(lox(&["--what"], "").status.code(), Some(64));
    assert_eq!(lox(&["a", "b"], "").status.code(), Some(64));
    assert_eq!(lox(&["/no/such/file"], "").status.code(), Some(74));
}
