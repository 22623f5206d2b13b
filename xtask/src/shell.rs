//! Runs commands, reads what Cargo says of the workspace, counts tests.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

/// What a verb returns: nothing, or one sentence that says what failed.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The workspace's root directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace's root")
}

/// `cargo`, the one that runs this program, in the workspace's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(arguments);
    command
}

/// Flags for the compiler beside those that are set already.
pub(crate) fn with_rustflags(command: &mut Command, flags: &str) {
    let mut all = env::var("RUSTFLAGS").unwrap_or_default();
    all.push(' ');
    all.push_str(flags);
    command.env("RUSTFLAGS", all.trim());
}

/// The command as one would type it, without its environment.
pub(crate) fn drawn(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    [program.into()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Runs the command to its end, its output going where ours goes.
pub(crate) fn run(mut command: Command) -> Outcome {
    let line = drawn(&command);
    eprintln!("$ {line}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` failed ({status})")),
        Err(error) => Err(format!("`{line}` could not be started: {error}")),
    }
}

/// Runs the command and returns its standard output; its standard error goes where ours goes.
pub(crate) fn output_of(mut command: Command) -> Outcome<String> {
    let line = drawn(&command);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("`{line}` could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{line}` failed ({})", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{line}` printed something that is not UTF-8"))
}

/// How many tests ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TestCount {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl TestCount {
    /// Adds what a line like `test result: ok. 3 passed; 0 failed; 1 ignored; ...` says; any other line adds nothing.
    pub(crate) fn add_line(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else { return };
        let after_verdict = result.split_once(". ").map_or("", |(_, counts)| counts);
        for part in after_verdict.split(';') {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next().and_then(|word| word.parse::<u64>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Adds another count.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// How many processors this process may use.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Runs commands that run tests, as many at once as there are processors; shows and counts as [`run_tests`] does, what
/// one command printed as one piece.
pub(crate) fn run_tests_at_once(commands: Vec<Command>, show: impl Fn(&str) -> bool + Sync) -> Outcome<TestCount> {
    let queue = Mutex::new(commands.into_iter());
    let runner = || -> Outcome<TestCount> {
        let mut count = TestCount::default();
        loop {
            // In a statement of its own: the lock is not held while the tests run.
            let next = queue.lock().expect("nobody panics while taking a command").next();
            let Some(mut command) = next else { return Ok(count) };
            let line = drawn(&command);
            eprintln!("$ {line}");
            let output = command.stderr(Stdio::inherit()).output();
            let output = output.map_err(|error| format!("`{line}` could not be started: {error}"))?;
            let all = String::from_utf8_lossy(&output.stdout);
            let mut counted = TestCount::default();
            all.lines().for_each(|line| counted.add_line(line));
            if !output.status.success() {
                print!("{all}");
                return Err(format!("`{line}` failed ({}; {} failed)", output.status, counted.failed));
            }
            let shown: String = all.split_inclusive('\n').filter(|line| show(line)).collect();
            print!("{shown}");
            count.add(counted);
        }
    };
    let ended: Vec<Outcome<TestCount>> = thread::scope(|scope| {
        let runners: Vec<_> = (0..processors()).map(|_| scope.spawn(runner)).collect();
        runners.into_iter().map(|runner| runner.join().expect("a runner does not panic")).collect()
    });
    let mut all = TestCount::default();
    for count in ended {
        all.add(count?);
    }
    Ok(all)
}

/// Runs a command that runs tests, shows the lines of its output that `show` wants, and counts the tests.
pub(crate) fn run_tests(mut command: Command, show: impl Fn(&str) -> bool) -> Outcome<TestCount> {
    let line = drawn(&command);
    eprintln!("$ {line}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| format!("`{line}` could not be started: {error}"))?;
    let mut count = TestCount::default();
    // The whole output is kept: if a test fails, why it did stands in lines that nobody wanted to see before.
    let mut all = String::new();
    let mut reader = BufReader::new(child.stdout.take().expect("standard output is piped"));
    loop {
        let mut bytes = Vec::new();
        match reader.by_ref().read_until(b'\n', &mut bytes) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(format!("`{line}`: its output could not be read: {error}")),
        }
        let text = String::from_utf8_lossy(&bytes);
        count.add_line(&text);
        if show(&text) {
            print!("{text}");
        }
        all.push_str(&text);
    }
    let status = child.wait().map_err(|error| format!("`{line}`: {error}"))?;
    if status.success() {
        return Ok(count);
    }
    print!("{all}");
    Err(format!("`{line}` failed ({status}; {} passed, {} failed)", count.passed, count.failed))
}

/// One package of the workspace, as far as the verbs need it.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// The packages of this workspace that it needs to be built.
    pub(crate) dependencies: Vec<String>,
    /// Those that only its tests, examples and benchmarks need.
    pub(crate) dev_dependencies: Vec<String>,
    /// Names of its targets by kind: `("test", "loom_publish")`.
    pub(crate) targets: Vec<(String, String)>,
    pub(crate) has_description: bool,
    pub(crate) has_license: bool,
}

/// What Cargo knows of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    /// By name.
    pub(crate) packages: Vec<Package>,
    /// Where build results go.
    pub(crate) target_dir: PathBuf,
}

impl Workspace {
    /// Asks Cargo.
    pub(crate) fn load() -> Outcome<Self> {
        let text = output_of(cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
        let json = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
        Self::from_metadata(&json).ok_or_else(|| "cargo metadata has another shape than expected".to_string())
    }

    fn from_metadata(json: &Value) -> Option<Self> {
        let mut packages = Vec::new();
        for package in json["packages"].as_array()? {
            let (mut dependencies, mut dev_dependencies) = (Vec::new(), Vec::new());
            // A dependency with a path is one of this workspace.
            for dependency in package["dependencies"].as_array()?.iter().filter(|it| !it["path"].is_null()) {
                let list = if dependency["kind"] == "dev" { &mut dev_dependencies } else { &mut dependencies };
                list.push(dependency["name"].as_str()?.to_string());
            }
            let mut targets = Vec::new();
            for target in package["targets"].as_array()? {
                let kind = target["kind"].as_array()?.first()?.as_str()?;
                targets.push((kind.to_string(), target["name"].as_str()?.to_string()));
            }
            packages.push(Package {
                name: package["name"].as_str()?.to_string(),
                dir: Path::new(package["manifest_path"].as_str()?).parent()?.to_path_buf(),
                dependencies,
                dev_dependencies,
                targets,
                has_description: package["description"].is_string(),
                has_license: package["license"].is_string(),
            });
        }
        packages.sort_by(|left, right| left.name.cmp(&right.name));
        Some(Self { packages, target_dir: PathBuf::from(json["target_directory"].as_str()?) })
    }

    /// The package called `name`.
    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }
}

/// An executable that Cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executable {
    /// The directory of its package.
    pub(crate) package_dir: PathBuf,
    /// The kind of its target as Cargo names it: `lib` for the tests inside a library, `test`, `bin`, `example`.
    pub(crate) kind: String,
    /// The name of its target.
    pub(crate) target: String,
    pub(crate) path: PathBuf,
}

impl Executable {
    /// What one line of `--message-format=json` says of an executable; `None` if it is of something else, or no JSON, as
    /// what build scripts print.
    fn from_message(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(Self {
            path: PathBuf::from(message["executable"].as_str()?),
            package_dir: Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf(),
            kind: message["target"]["kind"].as_array()?.first()?.as_str()?.to_string(),
            target: message["target"]["name"].as_str()?.to_string(),
        })
    }
}

/// Runs `cargo ARGUMENTS --message-format=json` and hands on each executable as soon as it is built.
pub(crate) fn build_each(mut command: Command, mut built: impl FnMut(Executable)) -> Outcome {
    let line = drawn(&command);
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("`{line}` could not be started: {error}"))?;
    let messages = BufReader::new(child.stdout.take().expect("standard output is piped"));
    for message in messages.lines() {
        let message = message.map_err(|error| format!("`{line}`: its output could not be read: {error}"))?;
        Executable::from_message(&message).into_iter().for_each(&mut built);
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` failed ({status})")),
        Err(error) => Err(format!("`{line}`: {error}")),
    }
}

/// The executables that `cargo ARGUMENTS --message-format=json` built, each with its target's name; builds them.
pub(crate) fn build_executables(command: Command) -> Outcome<Vec<(String, PathBuf)>> {
    let mut executables = Vec::new();
    build_each(command, |executable| executables.push((executable.target, executable.path)))?;
    Ok(executables)
}

/// Checks that `package` has an integration test called `test`: a name that is out of date would run nothing.
pub(crate) fn expect_test(package: &str, test: &str) -> Outcome {
    let target = ("test".to_string(), test.to_string());
    if Workspace::load()?.package(package).is_some_and(|package| package.targets.contains(&target)) {
        return Ok(());
    }
    Err(format!("package {package} has no test called `{test}`"))
}

/// Optimised code for tests, without what costs building most: linking across crates and debug information.
pub(crate) fn quick_to_build(command: &mut Command) {
    command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    command.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
}

/// Runs an integration test of the facade, optimised and with all that it prints; `variables` say how much of it.
pub(crate) fn run_facade_test(test: &str, variables: &[(&str, u64)]) -> Outcome {
    const PACKAGE: &str = "lsm-facade";
    expect_test(PACKAGE, test)?;
    let mut command = cargo(&["test", "--release", "--package", PACKAGE, "--test", test, "--", "--nocapture"]);
    command.envs(variables.iter().map(|(name, value)| (name, value.to_string())));
    quick_to_build(&mut command);
    let count = run_tests(command, |_| true)?;
    if count.passed == 0 { Err(format!("no {test} test ran")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_results_are_summed_and_other_lines_ignored() {
        let mut count = TestCount::default();
        count.add_line("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        count.add_line("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 7 filtered out");
        count.add_line("test passed ... ok");
        assert_eq!(count, TestCount { passed: 5, failed: 4, ignored: 1 });
    }

    #[test]
    fn an_executable_is_known_by_its_package_kind_and_target() {
        let message = serde_json::json!({
            "reason": "compiler-artifact", "manifest_path": "/w/crates/b/Cargo.toml",
            "target": {"kind": ["test"], "name": "golden"}, "executable": "/t/debug/deps/golden-1"
        });
        let executable = Executable::from_message(&message.to_string()).unwrap();
        assert_eq!((executable.package_dir, executable.path), ("/w/crates/b".into(), "/t/debug/deps/golden-1".into()));
        assert_eq!((&executable.kind[..], &executable.target[..]), ("test", "golden"));
        let mut library = message;
        library["executable"] = Value::Null;
        assert_eq!(Executable::from_message(&library.to_string()), None);
        assert_eq!(Executable::from_message("what a build script prints"), None);
    }

    #[test]
    fn metadata_is_read_by_kind_of_dependency() {
        let json = serde_json::json!({
            "target_directory": "/t",
            "packages": [{
                "name": "b", "manifest_path": "/w/crates/b/Cargo.toml", "description": "x", "license": null,
                "dependencies": [
                    {"name": "a", "kind": null, "path": "/w/crates/a"},
                    {"name": "tests", "kind": "dev", "path": "/w/crates/tests"},
                    {"name": "serde", "kind": null}
                ],
                "targets": [{"kind": ["lib"], "name": "b"}, {"kind": ["test"], "name": "loom_x"}]
            }]
        });
        let workspace = Workspace::from_metadata(&json).unwrap();
        let package = workspace.package("b").unwrap();
        assert_eq!(
            (&package.dependencies[..], &package.dev_dependencies[..]),
            (&["a".into()][..], &["tests".into()][..])
        );
        assert_eq!(package.targets[1], ("test".to_string(), "loom_x".to_string()));
        assert!(package.has_description && !package.has_license);
        assert_eq!(Workspace::from_metadata(&serde_json::json!({})).map(|_| ()), None);
    }
}
